//! Quarantine files: what the journal held for a namespace that would not open, so that the journal need not keep it.
//!
//! ```text
//!   0  8  magic "CMNHQRTN"
//!   8  4  format version
//!  12  4  length of the whole header, its checksum included; a multiple of 8
//!  16 16  id of the store whose journal it was
//!  32  8  the Seq above which every write to the namespace is in here …
//!  40  8  … up to and with this one
//!  48  8  number of records
//!  56  8  bytes of all records
//!  64  4  checksum of the last record
//!  68  4  zero
//!  72  …  what the journal's table knew of the namespace, as it stands there; zeros up to a multiple of 8
//!   …  4  CRC-32 of all before it
//!   …  4  zero
//! ```
//!
//! Then the records: those of the journal, of kind `carried`, with the Seqs that they had there and this namespace's
//! effects alone. Their checksums are seeded as those of a segment with number 0, which no segment has.

use std::io;
use std::path::{Path, PathBuf};

use commonhold_proto::{Namespace, Place, Seq};
use hashbrown::HashMap;

use super::Range;
use super::bytes::Fields;
use super::chain::{Link, for_each_effect, for_each_record};
use super::header::{CHECK_BYTES, Form, HeaderError};
use super::payload::{EffectKind, EffectRef, WriteHead, WritePayload, encode_write};
use super::record::{self, Kind, Stamp};
use super::segment::salt;
use super::table::{Known, decode_known, encode_known};
use crate::engine::disk::{self, Disk};
use crate::engine::error::Error;
use crate::engine::layout::Layout;

const MAGIC: &[u8; 8] = b"CMNHQRTN";
const FORMAT_VERSION: u32 = 1;
const FIXED_BYTES: usize = 72;
/// No header is longer: the entries of one namespace are few.
const MAX_HEADER_BYTES: usize = 1 << 30;

/// What all headers have in common.
const FORM: Form = Form {
    magic: MAGIC,
    versions: FORMAT_VERSION..=FORMAT_VERSION,
    lengths: FIXED_BYTES + CHECK_BYTES..=MAX_HEADER_BYTES,
    words: [
        "it ends inside its header",
        "it does not begin as a quarantine file does",
        "its header has an impossible length",
        "its header does not match its checksum",
    ],
};

/// What a quarantine file is, without its records.
#[derive(Clone, Debug)]
pub(crate) struct Quarantine {
    pub(crate) path: PathBuf,
    /// The store whose journal the records were in.
    pub(crate) store: u128,
    /// Every write to the namespace above this Seq …
    pub(crate) from: Seq,
    /// … up to and with this one is in the file.
    pub(crate) through: Seq,
    pub(crate) records: u64,
    /// What the journal's table knew of the namespace.
    pub(crate) known: Known,
    /// What is wrong with the file, if something is. Without a header that can be read, all of the above is empty.
    pub(crate) flaw: Option<Flaw>,
}

/// Where a quarantine file is not what was written, and what shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) offset: u64,
    pub(crate) reason: &'static str,
}

/// A quarantine file with its records.
pub(crate) struct Contents {
    pub(crate) head: Quarantine,
    place: Option<Place>,
    bytes: Vec<u8>,
    first: Link,
    /// Through where its records are good.
    end: u64,
}

impl Contents {
    /// Reads a file. One that is damaged is told by [`Quarantine::flaw`]; its good records can be had all the same.
    ///
    /// # Errors
    /// [`Error::NewerFormat`], [`Error::Disk`].
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Self, Error> {
        let bytes = disk.read(path).map_err(Error::disk("read", path))?;
        let none = Link { byte: 0, seq: Seq::ZERO, crc: 0 };
        let head = Quarantine {
            path: path.to_owned(),
            store: 0,
            from: Seq::ZERO,
            through: Seq::ZERO,
            records: 0,
            known: Known::default(),
            flaw: None,
        };
        let (header, length) = match Header::decode(&bytes) {
            Ok(read) => read,
            Err(HeaderError::Newer(version)) => {
                return Err(Error::NewerFormat { file: path.to_owned(), version, known: FORMAT_VERSION });
            }
            Err(HeaderError::Bad(reason)) => {
                let head = Quarantine { flaw: Some(Flaw { offset: 0, reason }), ..head };
                return Ok(Self { head, place: None, bytes, first: none, end: 0 });
            }
        };
        let first = Link { byte: length as u64, ..none };
        let mut records = 0;
        let end = for_each_record(&bytes, salt(header.store, 0), first, bytes.len() as u64, |record, _| {
            records += 1;
            record.stamp.kind == Kind::Carried
                && WritePayload::decode(record.payload).is_some_and(|payload| payload.for_each(|_, _| ()).is_some())
        });
        let is_whole = (records, end.byte, end.crc, bytes.len() as u64)
            == (header.records, length as u64 + header.bytes, header.last_crc, length as u64 + header.bytes);
        let flaw =
            (!is_whole).then_some(Flaw { offset: end.byte, reason: "its records are not those that were written" });
        let Header { store, from, through, records, known, place, .. } = header;
        let head = Quarantine { path: path.to_owned(), store, from, through, records, known, flaw };
        Ok(Self { head, place: Some(place), bytes, first, end: end.byte })
    }

    /// Hands every effect in the good records to `each`, in order.
    pub(crate) fn for_each_effect(&self, mut each: impl FnMut(Seq, EffectRef<'_>)) {
        for_each_record(&self.bytes, salt(self.head.store, 0), self.first, self.end, |record, _| {
            let payload = WritePayload::decode(record.payload).expect("it was read once already");
            payload.for_each(|_, effect| each(record.stamp.seq, effect)).expect("it was read once already");
            true
        });
    }
}

/// The bytes of a file that holds what `before` does and every effect on `place` in `ranges` above that.
pub(crate) struct Gathered {
    pub(crate) bytes: Vec<u8>,
    pub(crate) head: Quarantine,
}

/// What a new quarantine file is to say of itself.
pub(crate) struct Wanted<'a> {
    pub(crate) path: PathBuf,
    pub(crate) place: &'a Place,
    pub(crate) store: u128,
    /// Every write above this one is in `before` or in the journal.
    pub(crate) from: Seq,
    pub(crate) known: Known,
}

/// Gathers the records of a namespace: those of an older file, then those in the journal above them.
pub(crate) fn gather(
    disk: &dyn Disk,
    ranges: &[Range],
    wanted: Wanted<'_>,
    before: Option<&Contents>,
) -> Result<Gathered, Error> {
    let Wanted { path, place, store, from, known } = wanted;
    let mut records =
        Records { place, salt: salt(store, 0), out: Vec::new(), crc: 0, count: 0, at: Seq::ZERO, effects: Vec::new() };
    if let Some(before) = before {
        before.for_each_effect(|seq, effect| records.add(seq, effect));
    }
    let above = records.at.max(from);
    for_each_effect(disk, ranges, |seq, of, effect| {
        if of == place && seq > above {
            records.add(seq, effect);
        }
    })?;
    records.finish();
    let through = known.last.max(records.at);
    let (count, last_crc, body) = (records.count, records.crc, records.out);
    let header = Header {
        store,
        from,
        through,
        records: count,
        bytes: body.len() as u64,
        last_crc,
        place: place.clone(),
        known: known.clone(),
    };
    let mut bytes = header.encode();
    bytes.extend_from_slice(&body);
    let head = Quarantine { path, store, from, through, records: count, known, flaw: None };
    Ok(Gathered { bytes, head })
}

/// Records in the making: effects of one Seq become one record.
struct Records<'a> {
    place: &'a Place,
    salt: u64,
    out: Vec<u8>,
    crc: u32,
    count: u64,
    /// The Seq of the newest one, and its effects until they are written.
    at: Seq,
    effects: Vec<(EffectKind, String, String)>,
}

impl Records<'_> {
    fn add(&mut self, seq: Seq, effect: EffectRef<'_>) {
        if self.at != seq {
            self.finish();
            self.at = seq;
        }
        self.effects.push((effect.kind, effect.key.to_owned(), effect.value.to_owned()));
    }

    fn finish(&mut self) {
        let effects = std::mem::take(&mut self.effects);
        if effects.is_empty() {
            return;
        }
        let refs = effects.iter().map(|(kind, key, value)| EffectRef { kind: *kind, space: 0, key, value });
        let stamp = Stamp { seq: self.at, synced: Seq::ZERO, previous_crc: self.crc, kind: Kind::Carried };
        let place = self.place;
        self.crc = record::encode(&mut self.out, self.salt, stamp, |out| {
            encode_write(out, WriteHead::default(), &[place], refs);
        });
        self.count += 1;
    }
}

/// The quarantine files of a store, by namespace; their records are read, found good or not, and let go again.
///
/// # Errors
/// [`Error::NewerFormat`], [`Error::Disk`].
pub(crate) fn read_all(disk: &dyn Disk, layout: &Layout) -> Result<HashMap<Place, Quarantine>, Error> {
    let mut found = HashMap::new();
    let mut rooms = vec![(String::new(), layout.quarantine_room(None))];
    let workspaces = layout.quarantine_workspaces();
    for entry in list_if_there(disk, &workspaces)? {
        if let Some(name) = entry.name.to_str().filter(|_| entry.kind == disk::Kind::Dir) {
            rooms.push((name.to_owned(), layout.quarantine_room(Some(name))));
        }
    }
    for (workspace, room) in rooms {
        for entry in list_if_there(disk, &room)? {
            let name = entry.name.to_str().and_then(|name| name.strip_suffix(".records"));
            let place = name.filter(|name| Namespace::new(name).is_ok()).and_then(|n| Place::new(&workspace, n).ok());
            if let Some(place) = place {
                let mut contents = Contents::read(disk, &room.join(&entry.name))?;
                if contents.place.as_ref().is_some_and(|named| *named != place) {
                    contents.head.flaw = Some(Flaw { offset: 72, reason: "it is of another namespace" });
                }
                found.insert(place, contents.head);
            }
        }
    }
    Ok(found)
}

fn list_if_there(disk: &dyn Disk, path: &Path) -> Result<Vec<disk::Entry>, Error> {
    match disk.list(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(Error::disk("list", path)),
    }
}

struct Header {
    store: u128,
    from: Seq,
    through: Seq,
    records: u64,
    bytes: u64,
    last_crc: u32,
    place: Place,
    known: Known,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut out = FORM.begin();
        out.extend_from_slice(&self.store.to_le_bytes());
        for number in [self.from.0, self.through.0, self.records, self.bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.last_crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        debug_assert_eq!(out.len(), FIXED_BYTES);
        encode_known(&mut out, &self.place, &self.known);
        Form::finish(out)
    }

    fn decode(file: &[u8]) -> Result<(Self, usize), HeaderError> {
        let (body, length) = FORM.check(file)?;
        let read = Self::decode_fields(body).ok_or(HeaderError::Bad("its header has impossible contents"))?;
        Ok((read, length))
    }

    fn decode_fields(body: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(body);
        let store = fields.u128()?;
        let (from, through) = (Seq(fields.u64()?), Seq(fields.u64()?));
        let (records, bytes) = (fields.u64()?, fields.u64()?);
        let last_crc = fields.u32()?;
        fields.u32()?;
        let (place, known) = decode_known(&mut fields)?;
        Some(Self { store, from, through, records, bytes, last_crc, place, known })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::disk::SimDisk;

    const PATH: &str = "/a.records";

    fn written() -> Vec<u8> {
        let place = Place::new("w", "a").unwrap();
        let known = Known { last: Seq(9), covered: Seq(3), entries: Vec::new() };
        let wanted = Wanted { path: PATH.into(), place: &place, store: 42, from: Seq(1), known };
        let disk = SimDisk::new(1);
        let first = gather(&disk, &[], wanted, None).unwrap();
        let mut records = Records {
            place: &place,
            salt: salt(42, 0),
            out: Vec::new(),
            crc: 0,
            count: 0,
            at: Seq::ZERO,
            effects: Vec::new(),
        };
        for (seq, key) in [(4, "k"), (4, "l"), (9, "k")] {
            records.add(Seq(seq), EffectRef { kind: EffectKind::Put, space: 0, key, value: "1" });
        }
        records.finish();
        assert_eq!(records.count, 2, "effects of one Seq are one record");
        let (last_crc, bytes) = (records.crc, records.out.len() as u64);
        let known = first.head.known;
        let header = Header {
            store: 42,
            from: Seq(1),
            through: Seq(9),
            records: 2,
            bytes,
            last_crc,
            place: place.clone(),
            known,
        };
        [header.encode(), records.out].concat()
    }

    fn read(bytes: &[u8]) -> Result<Contents, Error> {
        let disk = SimDisk::new(1);
        disk.write_file(PATH, bytes);
        Contents::read(&disk, Path::new(PATH))
    }

    #[test]
    fn a_quarantine_file_reads_back_as_it_was_written() {
        let contents = read(&written()).unwrap();
        assert_eq!(contents.head.flaw, None);
        assert_eq!((contents.head.from, contents.head.through, contents.head.records), (Seq(1), Seq(9), 2));
        assert_eq!(contents.head.known.covered, Seq(3));
        let mut seen = Vec::new();
        contents.for_each_effect(|seq, effect| seen.push((seq.0, effect.key.to_owned())));
        assert_eq!(seen, [(4, "k".to_owned()), (4, "l".to_owned()), (9, "k".to_owned())]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_quarantine_file_is_noticed() {
        let bytes = written();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped).unwrap().head.flaw.is_some(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).unwrap().head.flaw.is_some(), "cut at {end}");
        }
        assert!(read(&[bytes, vec![0]].concat()).unwrap().head.flaw.is_some(), "a byte too many");
    }

    #[test]
    fn a_newer_version_is_refused_and_not_taken_for_damage() {
        let mut bytes = written();
        bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let end = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize - CHECK_BYTES;
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(read(&bytes), Err(Error::NewerFormat { version: 2, known: 1, .. })));
    }
}
