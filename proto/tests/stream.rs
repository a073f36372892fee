//! A connection delivers bytes in pieces of any size, and a hostile one delivers any bytes. Seeded: a failure names its
//! seed and is found again by it.

mod common;

use common::{Message, Numbers, samples};
use commonhold_proto::{DecodeError, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Hello, codec, frame};

/// All samples as one stream, and where each of its frames ends.
fn stream() -> (Vec<u8>, Vec<usize>) {
    let (mut stream, mut ends) = (Vec::new(), Vec::new());
    for (_, message) in samples::messages() {
        message.encode(&mut stream).expect("the samples are small");
        ends.push(stream.len());
    }
    (stream, ends)
}

/// How many whole frames lie at the beginning of `bytes`, and where the last of them ends.
fn whole_frames(bytes: &[u8]) -> (usize, usize) {
    let (mut frames, mut at) = (0, 0);
    while let Some((_, _, consumed)) = frame::split(&bytes[at..]).expect("the samples are good frames") {
        frames += 1;
        at += consumed;
    }
    (frames, at)
}

#[test]
fn a_stream_cut_at_any_byte_gives_the_frames_before_the_cut() {
    let (stream, ends) = stream();
    for cut in 0..=stream.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let end = whole.checked_sub(1).map_or(0, |last| ends[last]);
        assert_eq!(whole_frames(&stream[..cut]), (whole, end), "cut at byte {cut}");
    }
}

#[test]
fn a_frame_that_comes_byte_by_byte_is_the_same_frame() {
    for (name, message) in samples::messages() {
        let bytes = message.frame();
        for end in 0..bytes.len() {
            assert_eq!(frame::split(&bytes[..end]), Ok(None), "{name} after {end} bytes");
            let header = FrameHeader::parse(&bytes[..end]).expect("a good header");
            assert_eq!(header.is_some(), end >= FRAME_HEADER_BYTES, "{name} after {end} bytes");
        }
        let (header, body, consumed) = frame::split(&bytes).expect("a good frame").expect("all of it");
        assert_eq!((header.frame_len(), consumed), (bytes.len(), bytes.len()), "{name}");
        assert_eq!(body, &bytes[FRAME_HEADER_BYTES..], "{name}");
    }
}

/// Decodes a body as everything it might be. What decodes must encode to the very same bytes: there is one way to say a
/// thing, so that no two readers understand a message differently.
fn decode_as_all(body: &[u8], seed: u64) {
    let same = |message: Message| assert_eq!(&message.frame()[FRAME_HEADER_BYTES..], body, "seed {seed}: {message:?}");
    // The messages live as long as the body, which the type of the samples does not say.
    let body: &'static [u8] = Box::leak(body.into());
    match codec::decode_request(body) {
        Ok(request) => same(Message::Request(1, request)),
        Err(DecodeError::Malformed { reason }) => assert!(!reason.is_empty()),
        Err(DecodeError::Unsupported { .. }) => {}
    }
    if let Ok(answer) = codec::decode_answer(body) {
        same(Message::Answer(1, answer));
    }
    if let Ok(event) = codec::decode_event(body) {
        same(Message::Event(event));
    }
}

#[test]
fn random_bytes_give_a_message_or_an_error() {
    for seed in 0..4_000 {
        let mut numbers = Numbers(seed);
        let mut bytes: Vec<u8> = (0..numbers.below(96)).map(|_| numbers.next() as u8).collect();
        // Half of them with a known tag in each place where one may stand, so that decoding gets further.
        if seed % 2 == 0 && bytes.len() >= 8 {
            bytes[0..4].copy_from_slice(&(numbers.below(13) as u32).to_le_bytes());
            bytes[4..8].copy_from_slice(&(numbers.below(22) as u32).to_le_bytes());
        }
        decode_as_all(&bytes, seed);
        if let Ok(Some((header, body, consumed))) = frame::split(&bytes) {
            assert_eq!((header.body_len, consumed), (body.len(), header.frame_len()), "seed {seed}");
        }
    }
}

#[test]
fn mutated_messages_give_a_message_or_an_error() {
    let samples: Vec<Vec<u8>> = samples::messages().into_iter().map(|(_, message)| message.frame()).collect();
    for seed in 0..20_000 {
        let mut numbers = Numbers(seed);
        let mut bytes = samples[numbers.below(samples.len())].clone();
        for _ in 0..=numbers.below(3) {
            let at = numbers.below(bytes.len());
            match numbers.below(6) {
                0 => bytes[at] ^= 1 << numbers.below(8),
                1 => bytes[at] = numbers.next() as u8,
                2 => bytes.truncate(at.max(1)),
                3 => bytes.insert(at, numbers.next() as u8),
                4 => {
                    let other = &samples[numbers.below(samples.len())];
                    bytes.extend_from_slice(&other[numbers.below(other.len())..]);
                }
                _ => {
                    let length = [0, 1, 255, u64::from(u32::MAX), 1 << 40, u64::MAX][numbers.below(6)].to_le_bytes();
                    let end = bytes.len().min(at + 8);
                    bytes[at..end].copy_from_slice(&length[..end - at]);
                }
            }
        }
        if bytes.len() >= FRAME_HEADER_BYTES {
            decode_as_all(&bytes[FRAME_HEADER_BYTES..], seed);
        }
        if let Ok(Some((header, body, _))) = frame::split(&bytes) {
            assert!(header.kind != FrameKind::Cancel || body.is_empty(), "seed {seed}");
        }
    }
}

#[test]
fn random_hellos_give_a_hello_or_an_error() {
    for seed in 0..2_000 {
        let mut numbers = Numbers(seed);
        let mut bytes: [u8; 64] = std::array::from_fn(|_| numbers.next() as u8);
        if seed % 2 == 0 {
            bytes[..8].copy_from_slice(b"COMNHOLD");
        }
        if let Ok(hello) = Hello::from_bytes(&bytes) {
            assert_eq!(hello.to_bytes(), bytes, "seed {seed}");
        }
    }
}
