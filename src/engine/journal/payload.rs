//! What the records of the journal carry.
//!
//! ```text
//! head:     u128 client, u64 number, u32 new, u32 behind, u64 found: who asked, and what the answer says
//! write:    head, u32 namespaces, u32 effects
//!           each namespace: u16 length of the workspace's name, u16 length of the namespace's name, both names
//!           each effect: u8 kind (1 put, 2 put at the end, 3 delete, 4 clear), u8 zero, u16 index of the namespace,
//!                        u32 length of the key, u32 length of the value, key, value
//! loaded:   namespace (as above), entry: u8 kind (0 no file, 1 file), u128 hash, u64 size, u64 cut
//! intent:   the same: what the file is about to become
//! done:     namespace, u64 cut
//! drop:     namespace, head (since format version 2)
//! ceiling:  u64 Seq
//! ```
//!
//! Effects are absolute: they say what a key became and not how. *Put* keeps the place of a key that exists and
//! appends another; *put at the end* is what a delete and a put of the same key in one request come to. Records of kind
//! `carried` are writes as well, in quarantine files; there a drop is an effect of kind 5.

use commonhold_proto::{Place, Seq};

use super::bytes::Fields;
use super::table::{Entry, decode_entry, decode_place, encode_entry, encode_place};

/// What a write did to one key, or to a whole namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EffectKind {
    /// The key has this value; a new key goes to the end.
    Put = 1,
    /// The key has this value and is the last.
    PutAtEnd = 2,
    /// There is no such key.
    Delete = 3,
    /// There is no key.
    Clear = 4,
    /// There is no key, and there is to be no file. In the journal this is a record of its own.
    Drop = 5,
}

/// One effect, as it lies in a write record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EffectRef<'a> {
    pub(crate) kind: EffectKind,
    /// Index into the record's namespaces.
    pub(crate) space: u16,
    pub(crate) key: &'a str,
    pub(crate) value: &'a str,
}

/// Who asked for a write, and what it was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WriteHead {
    pub(crate) client: u128,
    pub(crate) number: u64,
    /// How many numbers back begins what the client may still ask about; 0 if it knows all before this one.
    pub(crate) behind: u32,
    pub(crate) new: u64,
    pub(crate) found: u64,
}

impl WriteHead {
    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.client.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        // A request has far fewer keys. Format version 1 had a u64 here: the same bytes, and `behind` 0.
        out.extend_from_slice(&u32::try_from(self.new).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.behind.to_le_bytes());
        out.extend_from_slice(&self.found.to_le_bytes());
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let (client, number) = (fields.u128()?, fields.u64()?);
        let (new, behind, found) = (u64::from(fields.u32()?), fields.u32()?, fields.u64()?);
        Some(Self { client, number, behind, new, found })
    }
}

/// Bytes of an effect beside its key and value.
pub(crate) const EFFECT_BYTES: usize = 12;
/// Bytes of a namespace beside its names.
pub(crate) const PLACE_BYTES: usize = 4;
/// Bytes of a write's record beside its namespaces and effects, its frame and padding included.
pub(crate) const WRITE_BYTES: usize = 48 + super::record::FRAME_BYTES + 7;

/// Writes the payload of a write.
pub(crate) fn encode_write<'a>(
    out: &mut Vec<u8>,
    head: WriteHead,
    places: &[&Place],
    effects: impl Iterator<Item = EffectRef<'a>>,
) {
    head.encode(out);
    out.extend_from_slice(&(places.len() as u32).to_le_bytes());
    let count_at = out.len();
    out.extend_from_slice(&[0; 4]);
    for place in places {
        encode_place(out, place);
    }
    let mut count = 0_u32;
    for effect in effects {
        count += 1;
        out.extend_from_slice(&[effect.kind as u8, 0]);
        out.extend_from_slice(&effect.space.to_le_bytes());
        out.extend_from_slice(&(effect.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&(effect.value.len() as u32).to_le_bytes());
        out.extend_from_slice(effect.key.as_bytes());
        out.extend_from_slice(effect.value.as_bytes());
    }
    out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
}

/// The payload of a write, as far as its namespaces; the effects are read one by one.
pub(crate) struct WritePayload<'a> {
    pub(crate) head: WriteHead,
    pub(crate) places: Vec<Place>,
    effects: u32,
    fields: Fields<'a>,
}

impl<'a> WritePayload<'a> {
    pub(crate) fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut fields = Fields::new(payload);
        let head = WriteHead::decode(&mut fields)?;
        let (places, effects) = (fields.u32()?, fields.u32()?);
        let places = (0..places).map(|_| decode_place(&mut fields)).collect::<Option<_>>()?;
        Some(Self { head, places, effects, fields })
    }

    /// Hands each effect to `each`; `None` if the bytes are not those of a write.
    pub(crate) fn for_each(mut self, mut each: impl FnMut(&Place, EffectRef<'a>)) -> Option<()> {
        for _ in 0..self.effects {
            let kind = match self.fields.u8()? {
                1 => EffectKind::Put,
                2 => EffectKind::PutAtEnd,
                3 => EffectKind::Delete,
                4 => EffectKind::Clear,
                5 => EffectKind::Drop,
                _ => return None,
            };
            self.fields.u8()?;
            let space = self.fields.u16()?;
            let (key, value) = (self.fields.u32()? as usize, self.fields.u32()? as usize);
            let effect = EffectRef { kind, space, key: self.fields.text(key)?, value: self.fields.text(value)? };
            each(self.places.get(usize::from(space))?, effect);
        }
        self.fields.is_empty().then_some(())
    }
}

/// Writes the payload of `loaded` and `intent`.
pub(crate) fn encode_file(out: &mut Vec<u8>, place: &Place, entry: &Entry) {
    encode_place(out, place);
    encode_entry(out, entry);
}

pub(crate) fn decode_file(payload: &[u8]) -> Option<(Place, Entry)> {
    let mut fields = Fields::new(payload);
    let file = (decode_place(&mut fields)?, decode_entry(&mut fields)?);
    fields.is_empty().then_some(file)
}

/// Writes the payload of `done`.
pub(crate) fn encode_done(out: &mut Vec<u8>, place: &Place, cut: Seq) {
    encode_place(out, place);
    out.extend_from_slice(&cut.0.to_le_bytes());
}

pub(crate) fn decode_done(payload: &[u8]) -> Option<(Place, Seq)> {
    let mut fields = Fields::new(payload);
    let done = (decode_place(&mut fields)?, Seq(fields.u64()?));
    fields.is_empty().then_some(done)
}

/// Writes the payload of `drop`.
pub(crate) fn encode_drop(out: &mut Vec<u8>, place: &Place, head: WriteHead) {
    encode_place(out, place);
    head.encode(out);
}

/// The namespace, and who asked; nobody in a record of format version 1.
pub(crate) fn decode_drop(payload: &[u8]) -> Option<(Place, WriteHead)> {
    let mut fields = Fields::new(payload);
    let place = decode_place(&mut fields)?;
    let head = if fields.is_empty() { WriteHead::default() } else { WriteHead::decode(&mut fields)? };
    fields.is_empty().then_some((place, head))
}

pub(crate) fn decode_ceiling(payload: &[u8]) -> Option<Seq> {
    Some(Seq(u64::from_le_bytes(payload.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_reads_back_as_it_was_written() {
        let places = [Place::new("", "a").unwrap(), Place::new("w", "b").unwrap()];
        let head = WriteHead { client: 1 << 90, number: 2, behind: 1, new: 3, found: 4 };
        let effects = [
            EffectRef { kind: EffectKind::Put, space: 1, key: "k", value: "{}" },
            EffectRef { kind: EffectKind::Clear, space: 0, key: "", value: "" },
            EffectRef { kind: EffectKind::Delete, space: 0, key: "", value: "" },
            EffectRef { kind: EffectKind::PutAtEnd, space: 0, key: "键", value: "null" },
        ];
        let mut bytes = Vec::new();
        encode_write(&mut bytes, head, &[&places[0], &places[1]], effects.into_iter());
        let payload = WritePayload::decode(&bytes).expect("is whole");
        assert_eq!(payload.head, head);
        let mut seen = Vec::new();
        payload.for_each(|place, effect| seen.push((place.clone(), effect))).expect("is whole");
        let expected: Vec<_> =
            effects.into_iter().map(|effect| (places[usize::from(effect.space)].clone(), effect)).collect();
        assert_eq!(seen, expected);
        for end in 0..bytes.len() {
            assert!(WritePayload::decode(&bytes[..end]).and_then(|payload| payload.for_each(|_, _| ())).is_none());
        }
    }

    #[test]
    fn a_drop_says_who_asked_and_one_of_the_first_format_version_reads_as_nobodys() {
        let place = Place::new("w", "b").unwrap();
        let head = WriteHead { client: 9, number: 2, behind: 1, new: 0, found: 4 };
        let mut bytes = Vec::new();
        encode_drop(&mut bytes, &place, head);
        assert_eq!(decode_drop(&bytes), Some((place.clone(), head)));
        let mut first = Vec::new();
        encode_place(&mut first, &place);
        assert_eq!(decode_drop(&first), Some((place, WriteHead::default())));
        for end in (0..bytes.len()).filter(|end| *end != first.len()) {
            assert!(decode_drop(&bytes[..end]).is_none(), "cut at {end}");
        }
    }
}
