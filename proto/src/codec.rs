//! (under construction)

/// Why bytes could not be decoded.
#[derive(Debug)]
pub struct DecodeError;
