//! The engine's promises, each tried on the simulated disk. [`model`] tries them all at once, at random.

mod model;
mod promises;
mod rig;
