//! Tests of the sealed format.

use super::*;
use std::marker::PhantomData;

const FRAME: usize = 16;
/// Bytes of a regular frame around its content.
const FRAME_EXTRA: usize = 4 + IV_LEN + TAG_LEN;

fn data_key() -> DataKey {
    DataKey::from_slice(&[7; 32]).unwrap()
}

fn wrapping_key() -> RawAesKey {
    RawAesKey::new("isoform", "local-1", &[9; 32]).unwrap()
}

fn context() -> EncryptionContext {
    [
        ("kind", "bundle"),
        ("digest", "sha256:00"),
        ("\u{e9}t\u{e9}", "\u{2600}"),
        ("empty", ""),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

fn header_of(context: EncryptionContext, frame: u32) -> Header {
    let wrapped = wrapping_key()
        .wrap(&data_key(), [3; IV_LEN], &context)
        .unwrap();
    let kms = EncryptedDataKey::kms("arn:aws:kms:eu-west-1:111122223333:key/a", vec![1, 2, 3]);
    Header {
        message_id: MessageId::new([5; 32]),
        context,
        encrypted_data_keys: vec![kms, wrapped],
        frame_length: FrameLength::new(frame).unwrap(),
    }
}

fn header() -> Header {
    header_of(context(), u32::try_from(FRAME).unwrap())
}

fn sealed(length: usize) -> (Vec<u8>, Vec<u8>) {
    let plain: Vec<u8> = (0..length)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let message = seal(&plain, data_key(), &header()).unwrap();
    (plain, message)
}

fn open_it(message: &[u8]) -> Result<Vec<u8>, Error> {
    open(message, &wrapping_key(), &Limits::default()).map(|(_, plain)| plain.to_vec())
}

/// Opens with the data key given, so that damage to the wrapped keys reaches the header tag.
fn open_with(message: &[u8], data_key: DataKey) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    Sealed::parse(message, &Limits::default())?
        .open(data_key)?
        .copy_to(&mut out)?;
    Ok(out)
}

fn header_length(message: &[u8]) -> usize {
    Sealed::parse(message, &Limits::default())
        .unwrap()
        .body
        .len()
        + TAG_LEN
}

/// Gives and takes a few bytes at a time.
struct Dribble<T>(T, usize);

impl<T: Read> Read for Dribble<T> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = out.len().min(self.1);
        self.0.read(&mut out[..count])
    }
}

impl<T: Write> Write for Dribble<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.1);
        self.0.write(&bytes[..count])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn round_trips_around_the_frame_length() {
    let sizes = [
        0,
        1,
        FRAME - 1,
        FRAME,
        FRAME + 1,
        2 * FRAME - 1,
        2 * FRAME,
        2 * FRAME + 1,
        10_007,
    ];
    for size in sizes {
        let (plain, message) = sealed(size);
        let (read, opened) = open(&message, &wrapping_key(), &Limits::default()).unwrap();
        assert_eq!(*opened, plain, "{size}");
        assert_eq!(read, header());
        // An exact multiple ends in a full final frame, not in an empty one.
        let frames = size.div_ceil(FRAME).max(1);
        assert_eq!(
            message.len(),
            header_length(&message) + size + frames * FRAME_EXTRA + 8
        );
    }
}

#[test]
fn streams_in_pieces_of_any_size() {
    let (plain, whole) = sealed(1000);
    for step in [1, 2, 3, 15, 16, 17, 64, 999] {
        let out = Dribble(Vec::new(), step);
        let mut encryptor = Encryptor::new(out, data_key(), &header()).unwrap();
        for piece in plain.chunks(step) {
            encryptor.write_all(piece).unwrap();
            encryptor.flush().unwrap();
        }
        let message = encryptor.finish().unwrap().0;
        assert_eq!(message, whole, "{step}");

        let sealed = Sealed::parse(Dribble(&message[..], step), &Limits::default()).unwrap();
        let mut reader = sealed.open(data_key()).unwrap();
        let mut out = Vec::new();
        Dribble(&mut reader, step).read_to_end(&mut out).unwrap();
        assert_eq!(out, plain, "{step}");
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let (_, message) = sealed(2 * FRAME + 3);
    for place in 0..message.len() {
        for bit in 0..8 {
            let mut bad = message.clone();
            bad[place] ^= 1 << bit;
            assert!(open_it(&bad).is_err(), "raw key: byte {place} bit {bit}");
            assert!(
                open_with(&bad, data_key()).is_err(),
                "data key: byte {place} bit {bit}"
            );
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for size in [0, 1, 2 * FRAME, 2 * FRAME + 3] {
        let (_, message) = sealed(size);
        for length in 0..message.len() {
            let error = open_it(&message[..length]).unwrap_err();
            assert!(
                matches!(error, Error::Truncated(_)),
                "{size}, {length}: {error}"
            );
        }
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    for size in [0, FRAME, FRAME + 1] {
        let (_, mut message) = sealed(size);
        message.push(0);
        assert!(matches!(open_it(&message), Err(Error::TrailingBytes)));
        let (_, second) = sealed(size);
        message.extend_from_slice(&second);
        assert!(matches!(open_it(&message), Err(Error::TrailingBytes)));
    }
}

#[test]
fn frames_cannot_be_moved_dropped_doubled_or_borrowed() {
    let (_, message) = sealed(3 * FRAME + 1);
    let start = header_length(&message);
    let frame = FRAME + FRAME_EXTRA;
    let cut = |n: usize| message[start + n * frame..start + (n + 1) * frame].to_vec();
    let head = message[..start].to_vec();
    let end = message[start + 3 * frame..].to_vec();
    assert!(open_it(&[head.clone(), cut(0), cut(1), cut(2), end.clone()].concat()).is_ok());
    for bad in [
        vec![head.clone(), cut(1), cut(0), cut(2), end.clone()],
        vec![head.clone(), cut(0), cut(2), end.clone()],
        vec![head.clone(), cut(0), cut(0), cut(1), cut(2), end.clone()],
        vec![head.clone(), end.clone()],
    ] {
        assert!(matches!(open_it(&bad.concat()), Err(Error::Malformed(_))));
    }
    // The same frame of another message under the same data key.
    let mut other = header();
    other.message_id = MessageId::new([6; 32]);
    let other = seal(&[1; 4 * FRAME], data_key(), &other).unwrap();
    let borrowed = other[start..start + frame].to_vec();
    let error = open_it(&[head, borrowed, cut(1), cut(2), end].concat()).unwrap_err();
    assert!(matches!(error, Error::FrameTag(1)), "{error}");
}

#[test]
fn a_regular_frame_is_not_a_final_frame() {
    // One full frame as the final one, its mark and length taken away: the AAD differs.
    let (_, message) = sealed(FRAME);
    let start = header_length(&message);
    let body = &message[start..];
    let regular = [
        &message[..start],
        &body[4..8 + IV_LEN],
        &body[12 + IV_LEN..],
    ]
    .concat();
    assert!(matches!(open_it(&regular), Err(Error::FrameTag(1))));
}

#[test]
fn a_final_frame_may_be_empty_as_the_python_client_writes_it() {
    let mut encryptor = Encryptor::new(Vec::new(), data_key(), &header()).unwrap();
    encryptor.write_all(&[1; FRAME]).unwrap();
    encryptor.put_frame(false).unwrap();
    let message = encryptor.finish().unwrap();
    assert_eq!(open_it(&message).unwrap(), [1; FRAME]);
}

#[test]
fn another_key_is_told_from_an_altered_message() {
    let (_, message) = sealed(5);
    let wrong = DataKey::from_slice(&[8; 32]).unwrap();
    assert!(matches!(open_with(&message, wrong), Err(Error::Commitment)));

    let limits = Limits::default();
    for key in [
        RawAesKey::new("isoform", "local-1", &[1; 32]).unwrap(),
        RawAesKey::new("isoform", "local-2", &[9; 32]).unwrap(),
        RawAesKey::new("isoform", "local", &[9; 32]).unwrap(),
        RawAesKey::new("other", "local-1", &[9; 32]).unwrap(),
    ] {
        assert!(matches!(
            open(&message, &key, &limits),
            Err(Error::NoMatchingKey)
        ));
    }

    let mut altered = message.clone();
    altered[header_length(&message) - 1] ^= 1;
    assert!(matches!(open_it(&altered), Err(Error::HeaderTag)));
}

#[test]
fn a_wrapped_key_is_bound_to_its_context() {
    let mut wrapped = header().encrypted_data_keys;
    let mut other = context();
    other.insert("kind".to_owned(), "log".to_owned());
    let refused = wrapping_key().unwrap(&wrapped, &other);
    assert!(matches!(refused, Err(Error::NoMatchingKey)));
    // A broken one before the good one is passed over.
    let mut broken = wrapped[1].clone();
    broken.ciphertext[0] ^= 1;
    wrapped.insert(0, broken);
    let found = wrapping_key().unwrap(&wrapped, &context()).unwrap();
    assert_eq!(found.expose(), data_key().expose());
}

#[test]
fn a_kms_data_key_takes_the_same_road() {
    let (plain, message) = sealed(40);
    let sealed = Sealed::parse(&message[..], &Limits::default()).unwrap();
    let blob = sealed
        .header()
        .encrypted_data_keys
        .iter()
        .find(|key| key.kms_key_arn() == Some("arn:aws:kms:eu-west-1:111122223333:key/a"))
        .map(|key| key.ciphertext.clone());
    assert_eq!(blob, Some(vec![1, 2, 3]));
    // What KMS would answer for that blob and context.
    let decryptor = sealed.open(data_key()).unwrap();
    decryptor.header().require_context(&context()).unwrap();
    let mut out = Vec::new();
    assert_eq!(decryptor.copy_to(&mut out).unwrap(), 40);
    assert_eq!(out, plain);
    assert_eq!(header().encrypted_data_keys[1].kms_key_arn(), None);
}

#[test]
fn expected_context_is_required() {
    let mut expected = EncryptionContext::new();
    header().require_context(&expected).unwrap();
    expected.insert("kind".to_owned(), "bundle".to_owned());
    header().require_context(&expected).unwrap();
    expected.insert("kind".to_owned(), "log".to_owned());
    let error = header().require_context(&expected).unwrap_err();
    assert!(matches!(error, Error::ContextMismatch(key) if key == "kind"));
}

#[test]
fn context_is_written_one_way_and_read_one_way() {
    assert_eq!(serialize_context(&EncryptionContext::new()).unwrap(), b"");
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let two: EncryptionContext = [pair("b", "2"), pair("a", "1")].into();
    let bytes = b"\0\x02\0\x01a\0\x011\0\x01b\0\x012";
    assert_eq!(serialize_context(&two).unwrap(), bytes);
    assert_eq!(parse_context(bytes).unwrap(), two);
    for bad in [
        &b"\0"[..],
        b"\0\0",
        b"\0\x01",
        b"\0\x01\0\x01a\0",
        b"\0\x01\0\x01a\0\x02b",
        b"\0\x01\0\x01\xff\0\x01b",
        b"\0\x01\0\x01a\0\x011x",
        b"\0\x02\0\x01b\0\x012\0\x01a\0\x011",
        b"\0\x02\0\x01a\0\x012\0\x01a\0\x011",
    ] {
        assert!(
            matches!(parse_context(bad), Err(Error::Malformed(_))),
            "{bad:?}"
        );
    }
}

#[test]
fn reserved_names_are_refused() {
    let reserved = [("aws-crypto-public-key".to_owned(), "x".to_owned())];
    let reserved = EncryptionContext::from(reserved);
    let wrapped = wrapping_key().wrap(&data_key(), [0; IV_LEN], &reserved);
    assert!(matches!(wrapped, Err(Error::ReservedContextKey(_))));
    let mut head = header();
    head.context.clone_from(&reserved);
    let refused = Encryptor::new(Vec::new(), data_key(), &head).err().unwrap();
    assert!(matches!(refused, Error::ReservedContextKey(_)));
    let parsed = parse_context(&serialize_context(&reserved).unwrap());
    assert!(matches!(parsed, Err(Error::ReservedContextKey(_))));
    let named = RawAesKey::new("aws-kms", "x", &[0; 32]).err().unwrap();
    assert!(matches!(named, Error::ReservedNamespace(_)));
    assert!(matches!(
        RawAesKey::new("x", "x", &[0; 31]),
        Err(Error::KeyLength(31))
    ));
}

#[test]
fn a_header_that_does_not_fit_is_refused_before_a_byte_is_written() {
    let refused = |head: &Header| {
        let mut out = Vec::new();
        let error = Encryptor::new(&mut out, data_key(), head).err().unwrap();
        assert!(out.is_empty());
        error
    };
    let mut head = header();
    head.encrypted_data_keys.clear();
    assert!(matches!(refused(&head), Error::NoEncryptedDataKey));
    let mut head = header();
    head.context.insert("long".to_owned(), "x".repeat(65_536));
    assert!(matches!(refused(&head), Error::Limit { .. }));
    let mut head = header();
    head.context.insert("a".to_owned(), "x".repeat(40_000));
    head.context.insert("b".to_owned(), "x".repeat(40_000));
    assert!(matches!(
        refused(&head),
        Error::Limit {
            what: "encryption context bytes",
            ..
        }
    ));
    let mut head = header();
    head.encrypted_data_keys[0].ciphertext = vec![0; 65_536];
    assert!(matches!(
        refused(&head),
        Error::Limit {
            what: "encrypted data key",
            ..
        }
    ));
    assert!(FrameLength::new(0).is_err());
    assert!(FrameLength::new(1 << 31).is_err());
}

#[test]
fn limits_hold_before_anything_is_believed() {
    let (_, message) = sealed(5);
    let parse = |limits: Limits| Sealed::parse(&message[..], &limits).err();
    let over = |what: &str, limits: Limits| match parse(limits) {
        Some(Error::Limit { what: found, .. }) => assert_eq!(found, what),
        other => panic!("{other:?}"),
    };
    let default = Limits::default();
    let frame = u32::try_from(FRAME).unwrap();
    let body = u32::try_from(header_length(&message) - TAG_LEN).unwrap();
    let context_bytes = u16::try_from(serialize_context(&context()).unwrap().len()).unwrap();
    let tight = Limits {
        encrypted_data_keys: 2,
        context_bytes,
        header_bytes: body,
        frame_bytes: frame,
    };
    assert!(parse(tight).is_none());
    over(
        "encrypted data keys",
        Limits {
            encrypted_data_keys: 1,
            ..default
        },
    );
    over(
        "encryption context bytes",
        Limits {
            context_bytes: context_bytes - 1,
            ..default
        },
    );
    over(
        "header bytes",
        Limits {
            header_bytes: body - 1,
            ..default
        },
    );
    over(
        "frame length",
        Limits {
            frame_bytes: frame - 1,
            ..default
        },
    );
}

#[test]
fn fields_of_other_formats_are_named() {
    let (_, message) = sealed(5);
    let with = |place: usize, value: u8| {
        let mut bad = message.clone();
        bad[place] = value;
        open_it(&bad).unwrap_err()
    };
    let content_type = header_length(&message) - TAG_LEN - COMMITMENT_LEN - 5;
    assert!(matches!(with(0, 1), Error::Version(1)));
    assert!(matches!(with(1, 5), Error::Suite(0x0578)));
    assert!(matches!(with(content_type, 1), Error::ContentType(1)));
    assert!(matches!(
        with(content_type + 4, 0),
        Error::Malformed("frame length is 0")
    ));
}

#[test]
fn a_failed_stream_stays_failed() {
    let (_, mut message) = sealed(2 * FRAME);
    let start = header_length(&message);
    message[start + 20] ^= 1;
    let sealed = Sealed::parse(&message[..], &Limits::default()).unwrap();
    let mut reader = sealed.open(data_key()).unwrap();
    let mut out = [0; 64];
    let first = Error::from(reader.read(&mut out).unwrap_err());
    assert!(matches!(first, Error::FrameTag(1)), "{first}");
    let second = Error::from(reader.read(&mut out).unwrap_err());
    assert!(matches!(second, Error::Poisoned), "{second}");
    assert_eq!(out, [0; 64]);
}

#[test]
fn a_writer_that_fails_ends_the_message() {
    /// Takes the header, then nothing.
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let head = header_length(&sealed(0).1);
    let mut encryptor = Encryptor::new(Full(head), data_key(), &header()).unwrap();
    let error = encryptor.write_all(&[0; FRAME + 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let error = Error::from(encryptor.write_all(&[0; 1]).unwrap_err());
    assert!(matches!(error, Error::Poisoned), "{error}");
    assert!(matches!(encryptor.finish(), Err(Error::Poisoned)));
}

#[test]
fn a_final_frame_longer_than_a_frame_is_refused_though_authentic() {
    let mut encryptor = Encryptor::new(Vec::new(), data_key(), &header()).unwrap();
    encryptor.frame_length = FRAME + 1;
    encryptor.write_all(&[0; FRAME + 1]).unwrap();
    let message = encryptor.finish().unwrap();
    let error = open_it(&message).unwrap_err();
    let text = "the final frame is longer than a frame";
    assert!(
        matches!(error, Error::Malformed(found) if found == text),
        "{error}"
    );
}

#[test]
fn the_last_frame_number_is_kept_for_the_final_frame() {
    let mut encryptor = Encryptor::new(Vec::new(), data_key(), &header()).unwrap();
    encryptor.sequence = u32::MAX;
    let error = Error::from(encryptor.write_all(&[0; FRAME + 1]).unwrap_err());
    assert!(matches!(error, Error::TooManyFrames), "{error}");
    // Nothing of that frame was written.
    assert_eq!(encryptor.inner.len(), header_length(&sealed(0).1));
    let mut encryptor = Encryptor::new(Vec::new(), data_key(), &header()).unwrap();
    encryptor.sequence = u32::MAX;
    encryptor.write_all(&[0; FRAME]).unwrap();
    let message = encryptor.finish().unwrap();
    let mut decryptor = Sealed::parse(&message[..], &Limits::default())
        .unwrap()
        .open(data_key())
        .unwrap();
    decryptor.sequence = u32::MAX;
    assert_eq!(decryptor.copy_to(&mut Vec::new()).unwrap(), 16);
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    // The frame claims 1 MiB and ends after a byte.
    let head = header_of(context(), 1024 * 1024);
    let message = seal(&[0; 2], data_key(), &head).unwrap();
    let start = header_length(&message);
    let lie = [&message[..start], &[0, 0, 0, 1], &[0; 11], &[1], &[0]].concat();
    let sealed = Sealed::parse(&lie[..], &Limits::default()).unwrap();
    let mut reader = sealed.open(data_key()).unwrap();
    let error = Error::from(reader.read(&mut [0; 1]).unwrap_err());
    assert!(matches!(error, Error::Truncated("a frame")), "{error}");
    assert!(reader.buffer.capacity() < 4096);
}

/// `Probe::<T>::DEBUG` is the inherent constant if `T: Debug`, else the trait's.
struct Probe<T>(PhantomData<T>);
trait NotDebug {
    const DEBUG: bool = false;
}
impl<T> NotDebug for Probe<T> {}
impl<T: fmt::Debug> Probe<T> {
    const DEBUG: bool = true;
}

#[test]
fn nothing_that_holds_a_key_can_be_printed() {
    const {
        assert!(Probe::<Header>::DEBUG);
        assert!(!Probe::<DataKey>::DEBUG);
        assert!(!Probe::<Derived>::DEBUG);
        assert!(!Probe::<RawAesKey>::DEBUG);
        assert!(!Probe::<FrameCipher>::DEBUG);
        assert!(!Probe::<Encryptor<Vec<u8>>>::DEBUG);
        assert!(!Probe::<Decryptor<&[u8]>>::DEBUG);
    }
}
