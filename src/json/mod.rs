//! JSON as text: the canonical form in which values are stored, and the reading and writing of namespace files.
//!
//! Values are never taken apart into trees: a value is its canonical text, kept, sent and written as it is. That keeps
//! number tokens byte for byte (big integers, `1.10`, `NaN`), which no tree of `f64` could, and costs one pass over the
//! bytes. The room is pure: no I/O, no clock, no state beyond a call; it knows nobody but the limits in `proto`.
//!
//! It promises: no recursion (nesting is bounded by [`MAX_NESTING`](commonhold_proto::limits::MAX_NESTING)); time and
//! memory linear in the text, whatever the text; an error for everything that is not JSON, with its place; canonical
//! text is left alone, and what Python's `json.dump` wrote is read and written back byte for byte.

mod canonical;
mod edit;
mod error;
mod load;
mod members;
mod number;
mod pieces;
mod reader;
mod scan;
mod write;

pub use canonical::{Canonical, Canonicalizer, canonical};
pub use edit::{Fields, Member, appended, elements, members, nesting, quoted, type_words, value_of, with_value};
pub use error::{FileError, JsonError};
pub use load::{LoadReport, believable, expected_records, load_object, load_object_telling};
pub use number::{NumberToken, python_float, whole_seconds};
pub use pieces::{PieceReader, cut, layout_of, records_in};
pub use write::{FileFormat, FileWriter, UnknownFormat, pretty, write_string};
