//! The AWS Encryption SDK message format, version 2, as far as isoform writes it.
//!
//! One suite only: `0x0478`, `AES_256_GCM_HKDF_SHA512_COMMIT_KEY` (AES-256-GCM, HKDF-SHA512, key
//! commitment, no signature), framed content only. A message is one self-contained file:
//!
//! ```text
//! header body | header tag | regular frame * | final frame
//! ```
//!
//! `docs/formats/sealed-bundle.md` gives the byte layout. The module is pure: bytes come through `Read` and `Write`,
//! and everything random (message id, data key, wrapping IV) is handed in by the caller. Nothing
//! here reads a clock, and nothing panics.
//!
//! Writing: draw a [`DataKey`], wrap it once per wrapping key ([`RawAesKey::wrap`], or KMS
//! `GenerateDataKey` with
//! [`EncryptedDataKey::kms`]), then write through an [`Encryptor`] and call [`Encryptor::finish`].
//!
//! Reading is in two steps, because the data key may have to come from a remote KMS:
//! [`Sealed::parse`] reads the header within [`Limits`]; the caller recovers the data key from
//! [`Header::encrypted_data_keys`]; [`Sealed::open`] checks commitment and header tag and gives a
//! [`Decryptor`]. **Until `open` has returned, nothing in the header is authentic.** A
//! [`Decryptor`] gives out only authenticated frames, but a cut or altered later frame shows only
//! when it is reached: whatever was read before an error must be thrown away.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, hkdf};
use zeroize::Zeroizing;

/// Message format version written and read.
pub const VERSION: u8 = 2;
/// Algorithm suite written and read: `AES_256_GCM_HKDF_SHA512_COMMIT_KEY`.
pub const SUITE_ID: u16 = 0x0478;
/// Length of a data key, a wrapping key and every derived key.
pub const KEY_LEN: usize = 32;
/// Length of a message id, which is also the HKDF salt.
pub const MESSAGE_ID_LEN: usize = 32;
/// Length of an AES-GCM IV.
pub const IV_LEN: usize = 12;
/// Length of an AES-GCM tag.
pub const TAG_LEN: usize = 16;
/// [`TAG_LEN`] as a wire length.
const TAG_BYTES: u64 = 16;
/// Length of the key commitment in the header ("algorithm suite data").
pub const COMMITMENT_LEN: usize = 32;
/// Key provider id of data keys wrapped by AWS KMS.
pub const KMS_PROVIDER_ID: &str = "aws-kms";

/// Context keys beginning so belong to the SDK and may not be written by a caller.
const RESERVED_PREFIX: &str = "aws-crypto-";
/// Context key of suites with a signature; it has no business in a message of this suite.
const PUBLIC_KEY_CONTEXT: &str = "aws-crypto-public-key";

/// Content type "framed" of the header.
const CONTENT_FRAMED: u8 = 2;
/// In the place of a sequence number: the final frame follows.
const FINAL_FRAME_MARK: u32 = u32::MAX;
const FRAME_AAD: &[u8] = b"AWSKMSEncryptionClient Frame";
const FINAL_FRAME_AAD: &[u8] = b"AWSKMSEncryptionClient Final Frame";
const DERIVE_LABEL: &[u8] = b"DERIVEKEY";
const COMMIT_LABEL: &[u8] = b"COMMITKEY";
/// Raw AES provider info, after the key name: tag length in bits, then IV length in bytes.
const RAW_AES_TAG_BITS: u32 = 128;
const RAW_AES_IV_BYTES: u32 = 12;

/// Non-secret pairs bound to the ciphertext; stored in clear in the header.
///
/// The format wants the pairs sorted by the UTF-8 bytes of their keys, which is the order of
/// `String`.
pub type EncryptionContext = BTreeMap<String, String>;

/// Why a message could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reader or writer beneath failed.
    #[error("sealed message: read or write failed")]
    Io(#[source] io::Error),
    /// The message ends before its final frame does.
    #[error("sealed message is cut short, in {0}")]
    Truncated(&'static str),
    /// Bytes follow the final frame.
    #[error("sealed message has bytes after its end")]
    TrailingBytes,
    /// Not a version 2 message.
    #[error("message format version {0} is not 2")]
    Version(u8),
    /// Another algorithm suite.
    #[error("algorithm suite 0x{0:04x} is not 0x0478")]
    Suite(u16),
    /// Not framed.
    #[error("content type {0} is not framed (2)")]
    ContentType(u8),
    /// A header or frame field that contradicts the format.
    #[error("sealed message is malformed: {0}")]
    Malformed(&'static str),
    /// A count or length over the reader's [`Limits`], or over what the format can express.
    #[error("{what} is {found}, over the limit of {limit}")]
    Limit {
        /// The field.
        what: &'static str,
        /// What the message, or the caller, asks for.
        found: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// A message needs at least one encrypted data key.
    #[error("a sealed message needs an encrypted data key")]
    NoEncryptedDataKey,
    /// A context key reserved to the SDK.
    #[error("encryption context key `{0}` is reserved")]
    ReservedContextKey(String),
    /// The header does not say what the reader expects.
    #[error("encryption context does not hold the expected value of `{0}`")]
    ContextMismatch(String),
    /// A key that is not 32 bytes.
    #[error("key is {0} bytes, not 32")]
    KeyLength(usize),
    /// A raw key may not use this namespace.
    #[error("key namespace `{0}` is reserved to KMS")]
    ReservedNamespace(String),
    /// No encrypted data key of the message was wrapped by this key, or none unwraps.
    #[error("no encrypted data key of the message opens with this key")]
    NoMatchingKey,
    /// The data key is not the one the message was sealed with.
    #[error("key commitment does not match the data key")]
    Commitment,
    /// The header was altered.
    #[error("header is not authentic")]
    HeaderTag,
    /// The frame of this number was altered, moved or belongs to another message.
    #[error("frame {0} is not authentic")]
    FrameTag(u32),
    /// More than 2^32 - 1 frames.
    #[error("message has too many frames")]
    TooManyFrames,
    /// The cryptographic library refused; it gives no reasons.
    #[error("cryptographic operation failed")]
    Crypto,
    /// An earlier call failed; the stream cannot go on.
    #[error("sealed stream failed before")]
    Poisoned,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(inner) => inner,
            Error::Truncated(_) => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

impl From<io::Error> for Error {
    /// Takes back the [`Error`] that went through `Read` or `Write`; anything else is
    /// [`Error::Io`].
    fn from(error: io::Error) -> Self {
        error.downcast::<Error>().unwrap_or_else(Error::Io)
    }
}

/// The 32 random bytes that name a message. Never used twice with one data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageId([u8; MESSAGE_ID_LEN]);

impl MessageId {
    /// Takes fresh random bytes.
    #[must_use]
    pub fn new(random: [u8; MESSAGE_ID_LEN]) -> Self {
        Self(random)
    }

    /// The bytes as they stand in the header.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; MESSAGE_ID_LEN] {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The secret a message's keys are derived from. Wiped when dropped; not `Debug`, not `Clone`.
pub struct DataKey(Zeroizing<[u8; KEY_LEN]>);

impl DataKey {
    /// Takes fresh random bytes.
    #[must_use]
    pub fn new(random: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self(random)
    }

    /// Takes a key as a KMS gives it out.
    ///
    /// # Errors
    /// [`Error::KeyLength`] unless it is 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Error> {
        key_from_slice(bytes).map(Self)
    }

    /// The secret bytes, for a wrapping key this module does not know.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Derives the content key and the commitment. Extract once, expand twice.
    fn derive(&self, message_id: &MessageId) -> Result<Derived, Error> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA512, &message_id.0).extract(&self.0[..]);
        let content = expand(&prk, &[&SUITE_ID.to_be_bytes(), DERIVE_LABEL])?;
        let commitment = expand(&prk, &[COMMIT_LABEL])?;
        Ok(Derived {
            content,
            commitment,
        })
    }
}

/// What a data key and a message id give.
struct Derived {
    content: Zeroizing<[u8; KEY_LEN]>,
    commitment: Zeroizing<[u8; COMMITMENT_LEN]>,
}

/// The output length handed to HKDF.
#[derive(Clone, Copy)]
struct Len32;

impl hkdf::KeyType for Len32 {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

fn expand(prk: &hkdf::Prk, info: &[&[u8]]) -> Result<Zeroizing<[u8; KEY_LEN]>, Error> {
    let mut out = Zeroizing::new([0u8; KEY_LEN]);
    let okm = prk.expand(info, Len32).map_err(|_| Error::Crypto)?;
    okm.fill(&mut out[..]).map_err(|_| Error::Crypto)?;
    Ok(out)
}

fn key_from_slice(bytes: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>, Error> {
    if bytes.len() != KEY_LEN {
        return Err(Error::KeyLength(bytes.len()));
    }
    let mut key = Zeroizing::new([0u8; KEY_LEN]);
    key.copy_from_slice(bytes);
    Ok(key)
}

fn aes_key(key: &[u8; KEY_LEN]) -> Result<LessSafeKey, Error> {
    let unbound = UnboundKey::new(&AES_256_GCM, key).map_err(|_| Error::Crypto)?;
    Ok(LessSafeKey::new(unbound))
}

/// The data key of a message as one wrapping key wrapped it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptedDataKey {
    /// Who wrapped it: a raw key's namespace, or `aws-kms`.
    pub provider_id: String,
    /// Which key of that provider: the raw AES provider info, or the KMS key ARN.
    pub provider_info: Vec<u8>,
    /// The wrapped data key, opaque but to the provider.
    pub ciphertext: Vec<u8>,
}

impl EncryptedDataKey {
    /// A data key wrapped by KMS: the key ARN that `GenerateDataKey` or `Encrypt` answered, and its
    /// ciphertext blob.
    #[must_use]
    pub fn kms(key_arn: &str, ciphertext_blob: Vec<u8>) -> Self {
        Self {
            provider_id: KMS_PROVIDER_ID.to_owned(),
            provider_info: key_arn.as_bytes().to_vec(),
            ciphertext: ciphertext_blob,
        }
    }

    /// The KMS key ARN, if KMS wrapped this data key.
    ///
    /// Taken from the message: compare it with the configured key before asking KMS, and name that
    /// key in the request.
    #[must_use]
    pub fn kms_key_arn(&self) -> Option<&str> {
        if self.provider_id == KMS_PROVIDER_ID {
            std::str::from_utf8(&self.provider_info).ok()
        } else {
            None
        }
    }
}

/// A raw AES-256 wrapping key with the names it goes by. Wiped when dropped; not `Debug`, not
/// `Clone`.
pub struct RawAesKey {
    namespace: String,
    name: String,
    key: Zeroizing<[u8; KEY_LEN]>,
}

impl RawAesKey {
    /// Names a wrapping key.
    ///
    /// # Errors
    /// [`Error::KeyLength`] unless `key` is 32 bytes; [`Error::ReservedNamespace`] for `aws-kms`.
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        key: &[u8],
    ) -> Result<Self, Error> {
        let namespace = namespace.into();
        if namespace.starts_with(KMS_PROVIDER_ID) {
            return Err(Error::ReservedNamespace(namespace));
        }
        Ok(Self {
            namespace,
            name: name.into(),
            key: key_from_slice(key)?,
        })
    }

    /// Wraps a data key, binding it to the context. `iv` must be fresh random bytes.
    ///
    /// # Errors
    /// [`Error::Limit`] or [`Error::ReservedContextKey`] for a context that cannot be written;
    /// [`Error::Crypto`].
    pub fn wrap(
        &self,
        data_key: &DataKey,
        iv: [u8; IV_LEN],
        context: &EncryptionContext,
    ) -> Result<EncryptedDataKey, Error> {
        refuse_reserved(context)?;
        let aad = serialize_context(context)?;
        // The plaintext key is replaced in place by its ciphertext; the buffer is wiped should
        // sealing fail.
        let mut buffer = Zeroizing::new(data_key.0.to_vec());
        let tag = aes_key(&self.key)?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(iv),
                Aad::from(aad),
                &mut buffer[..],
            )
            .map_err(|_| Error::Crypto)?;
        let mut ciphertext = buffer.to_vec();
        ciphertext.extend_from_slice(tag.as_ref());
        Ok(EncryptedDataKey {
            provider_id: self.namespace.clone(),
            provider_info: self.provider_info(iv),
            ciphertext,
        })
    }

    /// Finds and unwraps the message's data key: the first of `keys` that names this key and opens
    /// with it.
    ///
    /// # Errors
    /// [`Error::NoMatchingKey`] if there is none.
    pub fn unwrap(
        &self,
        keys: &[EncryptedDataKey],
        context: &EncryptionContext,
    ) -> Result<DataKey, Error> {
        let aad = serialize_context(context)?;
        let key = aes_key(&self.key)?;
        for wrapped in keys {
            let Some(iv) = self.iv_of(wrapped) else {
                continue;
            };
            let mut buffer = Zeroizing::new(wrapped.ciphertext.clone());
            let opened = key.open_in_place(
                Nonce::assume_unique_for_key(iv),
                Aad::from(&aad[..]),
                &mut buffer[..],
            );
            if let Ok(plain) = opened {
                return DataKey::from_slice(plain);
            }
        }
        Err(Error::NoMatchingKey)
    }

    fn provider_info(&self, iv: [u8; IV_LEN]) -> Vec<u8> {
        let mut info = self.name.as_bytes().to_vec();
        info.extend_from_slice(&RAW_AES_TAG_BITS.to_be_bytes());
        info.extend_from_slice(&RAW_AES_IV_BYTES.to_be_bytes());
        info.extend_from_slice(&iv);
        info
    }

    /// The wrapping IV, if `wrapped` names exactly this key and has the one form this module knows.
    fn iv_of(&self, wrapped: &EncryptedDataKey) -> Option<[u8; IV_LEN]> {
        if wrapped.provider_id != self.namespace || wrapped.ciphertext.len() != KEY_LEN + TAG_LEN {
            return None;
        }
        let rest = wrapped.provider_info.strip_prefix(self.name.as_bytes())?;
        let rest = rest.strip_prefix(&RAW_AES_TAG_BITS.to_be_bytes())?;
        let rest = rest.strip_prefix(&RAW_AES_IV_BYTES.to_be_bytes())?;
        rest.try_into().ok()
    }
}

/// The frame length of a message being written: 1 to 2^31 - 1, the most AWS's Python client opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLength(u32);

impl FrameLength {
    /// 4096, what AWS's clients write.
    pub const AWS_DEFAULT: Self = Self(4096);
    /// 64 KiB: 36 bytes (0.05 %) of overhead a frame, and one buffer of that size on either side.
    pub const DEFAULT: Self = Self(64 * 1024);
    const MAX: u32 = i32::MAX.unsigned_abs();

    /// Checks a frame length.
    ///
    /// # Errors
    /// [`Error::Malformed`] for 0, [`Error::Limit`] above 2^31 - 1.
    pub fn new(bytes: u32) -> Result<Self, Error> {
        if bytes == 0 {
            return Err(Error::Malformed("frame length is 0"));
        }
        check_limit("frame length", u64::from(bytes), u64::from(Self::MAX))?;
        Ok(Self(bytes))
    }

    /// The number of plaintext bytes in a regular frame.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for FrameLength {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The most a reader takes before it has authenticated anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Encrypted data keys in the header (the format allows 65 535).
    pub encrypted_data_keys: u16,
    /// Bytes of the serialised encryption context (the format allows 65 535; KMS takes 8 KiB).
    pub context_bytes: u16,
    /// Bytes of the header before its tag, all told.
    pub header_bytes: u32,
    /// Plaintext bytes of a frame: what is held in memory at once.
    pub frame_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            encrypted_data_keys: 16,
            context_bytes: 8192,
            header_bytes: 64 * 1024,
            frame_bytes: 1024 * 1024,
        }
    }
}

fn check_limit(what: &'static str, found: u64, limit: u64) -> Result<(), Error> {
    if found > limit {
        return Err(Error::Limit { what, found, limit });
    }
    Ok(())
}

/// The readable part of a message's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Names the message; the HKDF salt.
    pub message_id: MessageId,
    /// The pairs the message is bound to.
    pub context: EncryptionContext,
    /// The data key, wrapped once per wrapping key, in the order written.
    pub encrypted_data_keys: Vec<EncryptedDataKey>,
    /// Plaintext bytes of every frame but the last.
    pub frame_length: FrameLength,
}

impl Header {
    /// Checks that the context holds every pair of `expected`; it may hold more.
    ///
    /// # Errors
    /// [`Error::ContextMismatch`] names the first key that is missing or differs.
    pub fn require_context(&self, expected: &EncryptionContext) -> Result<(), Error> {
        for (key, value) in expected {
            if self.context.get(key) != Some(value) {
                return Err(Error::ContextMismatch(key.clone()));
            }
        }
        Ok(())
    }

    /// The header body, which is also the AAD of the header tag.
    fn to_bytes(&self, commitment: &[u8; COMMITMENT_LEN]) -> Result<Vec<u8>, Error> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&SUITE_ID.to_be_bytes());
        out.extend_from_slice(&self.message_id.0);
        put_u16_prefixed(
            &mut out,
            "encryption context",
            &serialize_context(&self.context)?,
        )?;
        put_u16(
            &mut out,
            "encrypted data keys",
            self.encrypted_data_keys.len(),
        )?;
        for key in &self.encrypted_data_keys {
            put_u16_prefixed(&mut out, "key provider id", key.provider_id.as_bytes())?;
            put_u16_prefixed(&mut out, "key provider info", &key.provider_info)?;
            put_u16_prefixed(&mut out, "encrypted data key", &key.ciphertext)?;
        }
        out.push(CONTENT_FRAMED);
        out.extend_from_slice(&self.frame_length.get().to_be_bytes());
        out.extend_from_slice(commitment);
        Ok(out)
    }
}

fn put_u16(out: &mut Vec<u8>, what: &'static str, number: usize) -> Result<(), Error> {
    let short = u16::try_from(number).map_err(|_| Error::Limit {
        what,
        found: u64::try_from(number).unwrap_or(u64::MAX),
        limit: u64::from(u16::MAX),
    })?;
    out.extend_from_slice(&short.to_be_bytes());
    Ok(())
}

fn put_u16_prefixed(out: &mut Vec<u8>, what: &'static str, bytes: &[u8]) -> Result<(), Error> {
    put_u16(out, what, bytes.len())?;
    out.extend_from_slice(bytes);
    Ok(())
}

/// Refuses context keys a caller may not write.
fn refuse_reserved(context: &EncryptionContext) -> Result<(), Error> {
    match context.keys().find(|key| key.starts_with(RESERVED_PREFIX)) {
        Some(key) => Err(Error::ReservedContextKey(key.clone())),
        None => Ok(()),
    }
}

/// Serialises a context: nothing at all if empty, else the count and the pairs in key order.
///
/// The same bytes stand in the header and are the AAD of a raw AES wrapping.
///
/// # Errors
/// [`Error::Limit`] if a count or length does not fit its 16 bits.
pub fn serialize_context(context: &EncryptionContext) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    if context.is_empty() {
        return Ok(out);
    }
    put_u16(&mut out, "encryption context pairs", context.len())?;
    for (key, value) in context {
        put_u16_prefixed(&mut out, "encryption context key", key.as_bytes())?;
        put_u16_prefixed(&mut out, "encryption context value", value.as_bytes())?;
    }
    // The header gives the whole 16 bits of length.
    check_limit(
        "encryption context bytes",
        len_u64(&out),
        u64::from(u16::MAX),
    )?;
    Ok(out)
}

fn len_u64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Reads the pairs back; takes only the one way [`serialize_context`] writes them.
fn parse_context(bytes: &[u8]) -> Result<EncryptionContext, Error> {
    let mut context = EncryptionContext::new();
    if bytes.is_empty() {
        return Ok(context);
    }
    let mut rest = bytes;
    let count = slice_u16(&mut rest)?;
    if count == 0 {
        return Err(Error::Malformed("encryption context counts no pairs"));
    }
    for _ in 0..count {
        let key = slice_string(&mut rest)?;
        let value = slice_string(&mut rest)?;
        if context
            .last_key_value()
            .is_some_and(|(last, _)| *last >= key)
        {
            return Err(Error::Malformed("encryption context keys are not in order"));
        }
        if key == PUBLIC_KEY_CONTEXT {
            return Err(Error::ReservedContextKey(key));
        }
        context.insert(key, value);
    }
    if !rest.is_empty() {
        return Err(Error::Malformed("encryption context has bytes over"));
    }
    Ok(context)
}

fn slice_u16(rest: &mut &[u8]) -> Result<u16, Error> {
    let (head, tail) = rest
        .split_first_chunk::<2>()
        .ok_or(Error::Malformed("encryption context is cut short"))?;
    *rest = tail;
    Ok(u16::from_be_bytes(*head))
}

fn slice_string(rest: &mut &[u8]) -> Result<String, Error> {
    let length = usize::from(slice_u16(rest)?);
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or(Error::Malformed("encryption context is cut short"))?;
    *rest = tail;
    std::str::from_utf8(head)
        .map(str::to_owned)
        .map_err(|_| Error::Malformed("encryption context is not UTF-8"))
}

/// The content key of a message, with what every frame's AAD begins with.
struct FrameCipher {
    key: LessSafeKey,
    message_id: MessageId,
}

impl FrameCipher {
    fn new(derived: &Derived, message_id: MessageId) -> Result<Self, Error> {
        Ok(Self {
            key: aes_key(&derived.content)?,
            message_id,
        })
    }

    /// The tag of the header: an empty plaintext under the all-zero IV, with the header body as
    /// AAD.
    fn header_tag(&self, body: &[u8]) -> Result<[u8; TAG_LEN], Error> {
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key([0; IV_LEN]),
                Aad::from(body),
                &mut [],
            )
            .map_err(|_| Error::Crypto)?;
        tag.as_ref().try_into().map_err(|_| Error::Crypto)
    }

    fn verify_header(&self, body: &[u8], tag: &[u8; TAG_LEN]) -> Result<(), Error> {
        let mut sealed = *tag;
        self.key
            .open_in_place(
                Nonce::assume_unique_for_key([0; IV_LEN]),
                Aad::from(body),
                &mut sealed,
            )
            .map(|_| ())
            .map_err(|_| Error::HeaderTag)
    }

    /// Encrypts one frame in place and gives its tag.
    fn seal(&self, frame: Frame, content: &mut [u8]) -> Result<[u8; TAG_LEN], Error> {
        let aad = self.aad(frame, len_u64(content));
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(frame.iv()),
                Aad::from(aad),
                content,
            )
            .map_err(|_| Error::Crypto)?;
        tag.as_ref().try_into().map_err(|_| Error::Crypto)
    }

    /// Authenticates and decrypts `length` bytes and the tag after them, in place; `buffer` is left
    /// with the plaintext.
    fn open(&self, frame: Frame, length: u32, buffer: &mut Vec<u8>) -> Result<(), Error> {
        let aad = self.aad(frame, u64::from(length));
        let plain = self
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(frame.iv()),
                Aad::from(aad),
                &mut buffer[..],
            )
            .map_err(|_| Error::FrameTag(frame.sequence))?
            .len();
        buffer.truncate(plain);
        Ok(())
    }

    fn aad(&self, frame: Frame, length: u64) -> Vec<u8> {
        let kind = if frame.last {
            FINAL_FRAME_AAD
        } else {
            FRAME_AAD
        };
        let mut aad = self.message_id.0.to_vec();
        aad.extend_from_slice(kind);
        aad.extend_from_slice(&frame.sequence.to_be_bytes());
        aad.extend_from_slice(&length.to_be_bytes());
        aad
    }
}

/// A frame's place in its message.
#[derive(Clone, Copy)]
struct Frame {
    sequence: u32,
    last: bool,
}

impl Frame {
    /// The sequence number, big-endian, padded on the left. The header's IV is number 0.
    fn iv(self) -> [u8; IV_LEN] {
        let [a, b, c, d] = self.sequence.to_be_bytes();
        [0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
    }
}

/// Writes a sealed message. Holds one frame of plaintext.
///
/// A message is whole only after [`Encryptor::finish`]; dropped earlier, it is cut short and every
/// reader refuses it.
pub struct Encryptor<W> {
    inner: W,
    cipher: FrameCipher,
    frame_length: usize,
    sequence: u32,
    buffer: Zeroizing<Vec<u8>>,
    failed: bool,
}

impl<W: Write> Encryptor<W> {
    /// Writes the header. Consumes the data key: a message id and a data key serve one message.
    ///
    /// # Errors
    /// [`Error::NoEncryptedDataKey`], [`Error::ReservedContextKey`], [`Error::Limit`] for a header
    /// that cannot be written, [`Error::Io`], [`Error::Crypto`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a data key serves one message"
    )]
    pub fn new(mut inner: W, data_key: DataKey, header: &Header) -> Result<Self, Error> {
        if header.encrypted_data_keys.is_empty() {
            return Err(Error::NoEncryptedDataKey);
        }
        refuse_reserved(&header.context)?;
        let frame_length = usize::try_from(header.frame_length.get())
            .map_err(|_| Error::Malformed("frame length"))?;
        let derived = data_key.derive(&header.message_id)?;
        let cipher = FrameCipher::new(&derived, header.message_id)?;
        let body = header.to_bytes(&derived.commitment)?;
        let tag = cipher.header_tag(&body)?;
        inner.write_all(&body).map_err(Error::Io)?;
        inner.write_all(&tag).map_err(Error::Io)?;
        Ok(Self {
            inner,
            cipher,
            frame_length,
            sequence: 1,
            // Never grows, so no plaintext is left behind by a reallocation.
            buffer: Zeroizing::new(Vec::with_capacity(frame_length)),
            failed: false,
        })
    }

    /// Writes the final frame and gives the writer back, flushed.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after an earlier failure, [`Error::Io`], [`Error::Crypto`].
    pub fn finish(mut self) -> Result<W, Error> {
        self.put_frame(true)?;
        self.inner.flush().map_err(Error::Io)?;
        Ok(self.inner)
    }

    /// Seals what is in the buffer as the next frame.
    fn put_frame(&mut self, last: bool) -> Result<(), Error> {
        if self.failed {
            return Err(Error::Poisoned);
        }
        self.failed = true;
        let sequence = self.sequence;
        // A regular frame of that number would read as the mark of the final one.
        if !last && sequence == FINAL_FRAME_MARK {
            return Err(Error::TooManyFrames);
        }
        let frame = Frame { sequence, last };
        let tag = self.cipher.seal(frame, &mut self.buffer[..])?;
        if last {
            let length =
                u32::try_from(self.buffer.len()).map_err(|_| Error::Malformed("frame length"))?;
            self.put(&FINAL_FRAME_MARK.to_be_bytes())?;
            self.put(&sequence.to_be_bytes())?;
            self.put(&frame.iv())?;
            self.put(&length.to_be_bytes())?;
        } else {
            self.put(&sequence.to_be_bytes())?;
            self.put(&frame.iv())?;
            self.sequence = sequence.checked_add(1).ok_or(Error::TooManyFrames)?;
        }
        self.inner.write_all(&self.buffer).map_err(Error::Io)?;
        self.put(&tag)?;
        self.buffer.clear();
        self.failed = false;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.inner.write_all(bytes).map_err(Error::Io)
    }
}

impl<W: Write> Write for Encryptor<W> {
    /// Takes up to a frame's worth. A full frame goes out only when more follows, so the final
    /// frame is never empty unless the message is.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed {
            return Err(Error::Poisoned.into());
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.buffer.len() >= self.frame_length {
            self.put_frame(false)?;
        }
        let room = self.frame_length.saturating_sub(self.buffer.len());
        let part = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(part);
        Ok(part.len())
    }

    /// Flushes the writer beneath; an unfinished frame stays here.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads header fields, keeping every byte for the header tag and counting them against the limit.
struct HeaderReader<'a, R> {
    inner: &'a mut R,
    raw: Vec<u8>,
    limit: u64,
}

impl<R: Read> HeaderReader<'_, R> {
    fn bytes(&mut self, length: usize) -> Result<&[u8], Error> {
        let start = self.raw.len();
        let end = start.saturating_add(length);
        check_limit(
            "header bytes",
            u64::try_from(end).unwrap_or(u64::MAX),
            self.limit,
        )?;
        let wanted = u64::try_from(length).unwrap_or(u64::MAX);
        let read = self
            .inner
            .by_ref()
            .take(wanted)
            .read_to_end(&mut self.raw)
            .map_err(Error::Io)?;
        if read != length {
            return Err(Error::Truncated("the header"));
        }
        Ok(self.raw.get(start..).unwrap_or_default())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.bytes(N)?
            .try_into()
            .map_err(|_| Error::Truncated("the header"))
    }

    fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    fn prefixed(&mut self) -> Result<Vec<u8>, Error> {
        let length = usize::from(self.u16()?);
        self.bytes(length).map(<[u8]>::to_vec)
    }

    fn encrypted_data_key(&mut self) -> Result<EncryptedDataKey, Error> {
        let provider_id = String::from_utf8(self.prefixed()?)
            .map_err(|_| Error::Malformed("key provider id is not UTF-8"))?;
        let provider_info = self.prefixed()?;
        let ciphertext = self.prefixed()?;
        Ok(EncryptedDataKey {
            provider_id,
            provider_info,
            ciphertext,
        })
    }
}

/// A message whose header has been read but not yet authenticated.
pub struct Sealed<R> {
    inner: R,
    header: Header,
    body: Vec<u8>,
    commitment: [u8; COMMITMENT_LEN],
    tag: [u8; TAG_LEN],
}

impl<R: Read> Sealed<R> {
    /// Reads a header, taking no more memory than `limits` allow.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Truncated`], [`Error::Limit`], [`Error::Malformed`] and the errors
    /// that name a field.
    pub fn parse(mut inner: R, limits: &Limits) -> Result<Self, Error> {
        let limit = u64::from(limits.header_bytes);
        let mut reader = HeaderReader {
            inner: &mut inner,
            raw: Vec::new(),
            limit,
        };
        let [version] = reader.array()?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let suite = reader.u16()?;
        if suite != SUITE_ID {
            return Err(Error::Suite(suite));
        }
        let message_id = MessageId(reader.array()?);
        let context_bytes = reader.u16()?;
        check_limit(
            "encryption context bytes",
            u64::from(context_bytes),
            u64::from(limits.context_bytes),
        )?;
        let context = parse_context(reader.bytes(usize::from(context_bytes))?)?;
        let count = reader.u16()?;
        if count == 0 {
            return Err(Error::NoEncryptedDataKey);
        }
        check_limit(
            "encrypted data keys",
            u64::from(count),
            u64::from(limits.encrypted_data_keys),
        )?;
        let mut encrypted_data_keys = Vec::new();
        for _ in 0..count {
            encrypted_data_keys.push(reader.encrypted_data_key()?);
        }
        let [content_type] = reader.array()?;
        if content_type != CONTENT_FRAMED {
            return Err(Error::ContentType(content_type));
        }
        let frame_length = u32::from_be_bytes(reader.array()?);
        check_limit(
            "frame length",
            u64::from(frame_length),
            u64::from(limits.frame_bytes),
        )?;
        let frame_length = FrameLength::new(frame_length)?;
        let commitment = reader.array()?;
        let body = reader.raw;
        let tag = read_array(&mut inner, "the header tag")?;
        let header = Header {
            message_id,
            context,
            encrypted_data_keys,
            frame_length,
        };
        Ok(Self {
            inner,
            header,
            body,
            commitment,
            tag,
        })
    }

    /// The header, **not yet authentic**: good for finding the data key, and for nothing else.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Checks the key commitment, in constant time, then the header tag; from then on the header is
    /// authentic.
    ///
    /// # Errors
    /// [`Error::Commitment`] if the message was sealed with another data key, [`Error::HeaderTag`]
    /// if the header was altered, [`Error::Crypto`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a data key serves one message"
    )]
    pub fn open(self, data_key: DataKey) -> Result<Decryptor<R>, Error> {
        let derived = data_key.derive(&self.header.message_id)?;
        constant_time::verify_slices_are_equal(&derived.commitment[..], &self.commitment)
            .map_err(|_| Error::Commitment)?;
        let cipher = FrameCipher::new(&derived, self.header.message_id)?;
        cipher.verify_header(&self.body, &self.tag)?;
        Ok(Decryptor {
            inner: self.inner,
            header: self.header,
            cipher,
            sequence: 1,
            buffer: Zeroizing::new(Vec::new()),
            given: 0,
            state: State::Frames,
        })
    }
}

fn read_array<const N: usize>(
    inner: &mut impl Read,
    place: &'static str,
) -> Result<[u8; N], Error> {
    let mut out = [0; N];
    inner
        .read_exact(&mut out)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Truncated(place),
            _ => Error::Io(error),
        })?;
    Ok(out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A frame is to come.
    Frames,
    /// The final frame was authentic and nothing follows it.
    Done,
    /// An error was given out.
    Failed,
}

/// Reads a sealed message. Holds one frame, and gives out none before its tag was checked.
pub struct Decryptor<R> {
    inner: R,
    header: Header,
    cipher: FrameCipher,
    sequence: u32,
    buffer: Zeroizing<Vec<u8>>,
    given: usize,
    state: State,
}

impl<R: Read> Decryptor<R> {
    /// The authentic header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the whole message into `out` and gives the number of plaintext bytes.
    ///
    /// # Errors
    /// Every error of the frames; `out` then holds a part that must be thrown away.
    pub fn copy_to(mut self, out: &mut impl Write) -> Result<u64, Error> {
        let mut total = 0u64;
        loop {
            let part = self.available()?;
            if part.is_empty() {
                return Ok(total);
            }
            out.write_all(part).map_err(Error::Io)?;
            let length = part.len();
            total = total.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            self.given = self.given.saturating_add(length);
        }
    }

    /// Plaintext not yet given out, from the next frames if need be; empty at the end of the
    /// message only.
    fn available(&mut self) -> Result<&[u8], Error> {
        while self.given >= self.buffer.len() && self.state != State::Done {
            if self.state == State::Failed {
                return Err(Error::Poisoned);
            }
            self.state = State::Failed;
            self.given = 0;
            self.buffer.clear();
            let read = self.read_frame();
            if read.is_err() {
                // Ciphertext, or plaintext of a frame whose message did not end where it must.
                self.buffer.clear();
            }
            self.state = read?;
        }
        Ok(self.buffer.get(self.given..).unwrap_or_default())
    }

    /// Reads, checks and decrypts the next frame into the buffer.
    fn read_frame(&mut self) -> Result<State, Error> {
        let frame_length = self.header.frame_length.get();
        let mut sequence = u32::from_be_bytes(read_array(&mut self.inner, "a frame's number")?);
        let last = sequence == FINAL_FRAME_MARK;
        if last {
            sequence = u32::from_be_bytes(read_array(&mut self.inner, "the final frame's number")?);
        }
        if sequence != self.sequence {
            return Err(Error::Malformed("frames are not in order"));
        }
        let frame = Frame { sequence, last };
        let iv: [u8; IV_LEN] = read_array(&mut self.inner, "a frame's IV")?;
        if iv != frame.iv() {
            return Err(Error::Malformed("a frame's IV is not its number"));
        }
        let length = if last {
            u32::from_be_bytes(read_array(&mut self.inner, "the final frame's length")?)
        } else {
            frame_length
        };
        if length > frame_length {
            return Err(Error::Malformed("the final frame is longer than a frame"));
        }
        // At most `length` and a tag; memory grows with the bytes that really come.
        let wanted = u64::from(length).saturating_add(TAG_BYTES);
        let read = self
            .inner
            .by_ref()
            .take(wanted)
            .read_to_end(&mut self.buffer)
            .map_err(Error::Io)?;
        if u64::try_from(read).unwrap_or(u64::MAX) != wanted {
            return Err(Error::Truncated("a frame"));
        }
        self.cipher.open(frame, length, &mut self.buffer)?;
        if last {
            let mut probe = Vec::new();
            if self
                .inner
                .by_ref()
                .take(1)
                .read_to_end(&mut probe)
                .map_err(Error::Io)?
                != 0
            {
                return Err(Error::TrailingBytes);
            }
            return Ok(State::Done);
        }
        // No regular frame is numbered with the mark, so this does not pass the final frame's
        // highest number.
        self.sequence = sequence.checked_add(1).ok_or(Error::TooManyFrames)?;
        Ok(State::Frames)
    }
}

impl<R: Read> Read for Decryptor<R> {
    /// Gives 0 only at the end of a message that was whole. Errors carry an [`Error`]; see
    /// `From<io::Error>`.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let mut part = self.available()?;
        let count = part.read(out)?;
        self.given = self.given.saturating_add(count);
        Ok(count)
    }
}

/// Seals bytes already in memory.
///
/// # Errors
/// Those of [`Encryptor::new`] and [`Encryptor::finish`].
pub fn seal(plain: &[u8], data_key: DataKey, header: &Header) -> Result<Vec<u8>, Error> {
    let mut encryptor = Encryptor::new(Vec::new(), data_key, header)?;
    encryptor.write_all(plain)?;
    encryptor.finish()
}

/// Opens bytes already in memory with a raw key. Gives plaintext only if the whole message was
/// good.
///
/// # Errors
/// Those of [`Sealed::parse`], [`RawAesKey::unwrap`], [`Sealed::open`] and [`Decryptor::copy_to`].
pub fn open(
    message: &[u8],
    key: &RawAesKey,
    limits: &Limits,
) -> Result<(Header, Zeroizing<Vec<u8>>), Error> {
    let sealed = Sealed::parse(message, limits)?;
    let data_key = key.unwrap(
        &sealed.header().encrypted_data_keys,
        &sealed.header().context,
    )?;
    let decryptor = sealed.open(data_key)?;
    let header = decryptor.header().clone();
    // The plaintext is shorter than the message: one allocation, so nothing is left behind by
    // growing.
    let mut plain = Zeroizing::new(Vec::with_capacity(message.len()));
    decryptor.copy_to(&mut *plain)?;
    Ok((header, plain))
}

#[cfg(test)]
mod tests;
