//! (room under construction)

pub mod clock;
pub mod disk;
pub mod map;
