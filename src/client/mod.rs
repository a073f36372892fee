//! (room under construction)
pub mod blocking {
    //! (room under construction)
}
