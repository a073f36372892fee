//! (under construction)

/// Header.
#[derive(Debug)]
pub struct FrameHeader;
/// Kind.
#[derive(Debug)]
pub struct FrameKind;
