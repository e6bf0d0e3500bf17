//! The one spelling of JSON, RFC 8785, written straight from what is to be spelled.
//!
//! `serde_json_canonicalizer` reads each key back and boxes every write; chains of hundreds of thousands of entries are
//! verified with this. It stays the authority for numbers that are no small integers, and in the tests for everything.

use serde::Serialize;
use serde::ser::{self, SerializeMap};

/// Why a value has no spelling: a float that is not finite, or a key that is no text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unspellable(String);

impl ser::Error for Unspellable {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Appends the canonical spelling of a value.
pub fn canonical_into<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), Unspellable> {
    let mut room = Room::default();
    value.serialize(&mut Writer {
        out,
        members: &mut room.members,
        sorted: &mut room.sorted,
    })
}

/// Memory for spelling many values, one after the other.
#[derive(Default)]
pub struct Room {
    out: Vec<u8>,
    members: Vec<Member>,
    sorted: Vec<u8>,
}

impl Room {
    /// Spells a value.
    pub fn spell<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<&[u8], Unspellable> {
        self.out.clear();
        self.members.clear();
        value.serialize(&mut Writer {
            out: &mut self.out,
            members: &mut self.members,
            sorted: &mut self.sorted,
        })?;
        Ok(&self.out)
    }
}

/// Integers up to here are exact as floats, which is what every number is in RFC 8785.
const EXACT: u64 = 1 << 53;

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Members of the objects that are open.
    members: &'a mut Vec<Member>,
    /// Where members are put in order; kept for its memory.
    sorted: &'a mut Vec<u8>,
}

/// Where a member lies in what was written: its key with quotes, and its end.
struct Member {
    start: usize,
    colon: usize,
    end: usize,
}

impl Writer<'_> {
    fn text(&mut self, text: &str) {
        self.out.push(b'"');
        self.inside(text);
        self.out.push(b'"');
    }

    /// Writes a part of a text.
    fn inside(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        // In blocks without a way out of them, which the compiler makes one step of. Nearly every text is plain.
        let plain = |block: &[u8]| {
            let odd = |b: &u8| u8::from((*b < 0x20) | (*b == b'"') | (*b == b'\\'));
            block.iter().map(odd).fold(0, |a, b| a | b) == 0
        };
        if rest.chunks(32).all(plain) {
            self.out.extend_from_slice(rest);
            return;
        }
        while let Some(at) = rest
            .iter()
            .position(|b| *b < 0x20 || matches!(b, b'"' | b'\\'))
        {
            self.out.extend_from_slice(&rest[..at]);
            let short = match rest[at] {
                b'"' => b'"',
                b'\\' => b'\\',
                0x08 => b'b',
                0x09 => b't',
                0x0a => b'n',
                0x0c => b'f',
                0x0d => b'r',
                other => {
                    self.out
                        .extend_from_slice(format!("\\u{other:04x}").as_bytes());
                    rest = &rest[at + 1..];
                    continue;
                }
            };
            self.out.extend_from_slice(&[b'\\', short]);
            rest = &rest[at + 1..];
        }
        self.out.extend_from_slice(rest);
    }

    fn integer(&mut self, negative: bool, mut number: u64) -> Result<(), Unspellable> {
        if number > EXACT {
            let float = number as f64;
            return self.float(if negative { -float } else { float });
        }
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        if negative {
            self.out.push(b'-');
        }
        self.out.extend_from_slice(&digits[at..]);
        Ok(())
    }

    fn float(&mut self, number: f64) -> Result<(), Unspellable> {
        let text = serde_json_canonicalizer::to_vec(&number).map_err(ser::Error::custom)?;
        self.out.extend_from_slice(&text);
        Ok(())
    }

    /// Ends an object whose members were written as they came, each with its comma but the first.
    fn close(&mut self, start: usize, base: usize) {
        let (out, members) = (&mut *self.out, &mut self.members[base..]);
        let plain = |m: &Member| {
            out[m.start..m.colon]
                .iter()
                .all(|b| b.is_ascii() && *b != b'\\')
        };
        if members.iter().all(plain) {
            // Plain keys: the order of bytes is that of UTF-16. Without the closing quote, so that a prefix comes first.
            let key = |m: &Member| m.start + 1..m.colon - 1;
            if !members.is_sorted_by(|a, b| out[key(a)] < out[key(b)]) {
                members.sort_by(|a, b| out[key(a)].cmp(&out[key(b)]));
                self.reorder(start, base, |out, a, b| out[key(a)] == out[key(b)]);
            }
        } else {
            let key = |out: &[u8], m: &Member| -> Vec<u16> {
                let text: String =
                    serde_json::from_slice(&out[m.start..m.colon]).unwrap_or_default();
                text.encode_utf16().collect()
            };
            members.sort_by_cached_key(|m| key(out, m));
            self.reorder(start, base, move |out, a, b| key(out, a) == key(out, b));
        }
        self.members.truncate(base);
        self.out.push(b'}');
    }

    /// Writes the members again in the order in which they stand; of two with the same key the first stays.
    fn reorder(
        &mut self,
        start: usize,
        base: usize,
        same: impl Fn(&[u8], &Member, &Member) -> bool,
    ) {
        self.sorted.clear();
        let mut last: Option<&Member> = None;
        for member in &self.members[base..] {
            if last.is_some_and(|last| same(self.out, last, member)) {
                continue;
            }
            if last.is_some() {
                self.sorted.push(b',');
            }
            self.sorted
                .extend_from_slice(&self.out[member.start..member.end]);
            last = Some(member);
        }
        self.out.truncate(start);
        self.out.extend_from_slice(self.sorted);
    }
}

impl std::fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.inside(text);
        Ok(())
    }
}

/// A list or an object that is open.
struct Open<'w, 'a> {
    writer: &'w mut Writer<'a>,
    /// Behind its bracket.
    start: usize,
    /// The first of its members.
    base: usize,
    /// What ends it beside its own bracket.
    end: &'static [u8],
}

impl<'w, 'a> Open<'w, 'a> {
    fn new(writer: &'w mut Writer<'a>, bracket: u8, end: &'static [u8]) -> Self {
        writer.out.push(bracket);
        let (start, base) = (writer.out.len(), writer.members.len());
        Self {
            writer,
            start,
            base,
            end,
        }
    }

    /// Opens what stands within a variant.
    fn variant(writer: &'w mut Writer<'a>, name: &str, bracket: u8) -> Self {
        writer.out.push(b'{');
        writer.text(name);
        writer.out.push(b':');
        Self::new(writer, bracket, b"}")
    }

    fn comma(&mut self) {
        if self.writer.out.len() > self.start {
            self.writer.out.push(b',');
        }
    }

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unspellable> {
        self.comma();
        value.serialize(&mut *self.writer)
    }

    fn named<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), Unspellable> {
        self.comma();
        let start = self.writer.out.len();
        self.writer.text(key);
        self.member(start, value)
    }

    /// Writes the value of a key that was written.
    fn member<T: Serialize + ?Sized>(
        &mut self,
        start: usize,
        value: &T,
    ) -> Result<(), Unspellable> {
        let colon = self.writer.out.len();
        self.writer.out.push(b':');
        value.serialize(&mut *self.writer)?;
        let end = self.writer.out.len();
        self.writer.members.push(Member { start, colon, end });
        Ok(())
    }

    fn end_list(self) {
        self.writer.out.push(b']');
        self.writer.out.extend_from_slice(self.end);
    }

    fn end_object(self) {
        self.writer.close(self.start, self.base);
        self.writer.out.extend_from_slice(self.end);
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, value: $type) -> Result<(), Unspellable> {
            let value = i128::from(value);
            let size = u64::try_from(value.unsigned_abs()).map_err(ser::Error::custom)?;
            self.integer(value < 0, size)
        }
    )*};
}

impl<'w, 'a> ser::Serializer for &'w mut Writer<'a> {
    type Ok = ();
    type Error = Unspellable;
    type SerializeSeq = Open<'w, 'a>;
    type SerializeTuple = Open<'w, 'a>;
    type SerializeTupleStruct = Open<'w, 'a>;
    type SerializeTupleVariant = Open<'w, 'a>;
    type SerializeMap = Keyed<'w, 'a>;
    type SerializeStruct = Open<'w, 'a>;
    type SerializeStructVariant = Open<'w, 'a>;

    integers!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_u8: u8,
        serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);

    fn serialize_bool(self, value: bool) -> Result<(), Unspellable> {
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Unspellable> {
        self.float(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<(), Unspellable> {
        self.float(value)
    }

    fn serialize_char(self, value: char) -> Result<(), Unspellable> {
        self.text(value.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), Unspellable> {
        self.text(value);
        Ok(())
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result<(), Unspellable> {
        use std::fmt::Write;
        self.out.push(b'"');
        write!(self, "{value}").map_err(ser::Error::custom)?;
        self.out.push(b'"');
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Unspellable> {
        self.collect_seq(value)
    }

    fn serialize_none(self) -> Result<(), Unspellable> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unspellable> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unspellable> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unspellable> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Unspellable> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unspellable> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unspellable> {
        self.out.push(b'{');
        self.text(variant);
        self.out.push(b':');
        value.serialize(&mut *self)?;
        self.out.push(b'}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Open<'w, 'a>, Unspellable> {
        Ok(Open::new(self, b'[', b""))
    }

    fn serialize_tuple(self, _: usize) -> Result<Open<'w, 'a>, Unspellable> {
        Ok(Open::new(self, b'[', b""))
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Open<'w, 'a>, Unspellable> {
        Ok(Open::new(self, b'[', b""))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Open<'w, 'a>, Unspellable> {
        Ok(Open::variant(self, variant, b'['))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Keyed<'w, 'a>, Unspellable> {
        Ok(Keyed(Open::new(self, b'{', b""), 0))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Open<'w, 'a>, Unspellable> {
        Ok(Open::new(self, b'{', b""))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Open<'w, 'a>, Unspellable> {
        Ok(Open::variant(self, variant, b'{'))
    }
}

macro_rules! lists {
    ($($trait:ident: $method:ident),*) => {$(
        impl ser::$trait for Open<'_, '_> {
            type Ok = ();
            type Error = Unspellable;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unspellable> {
                self.item(value)
            }

            fn end(self) -> Result<(), Unspellable> {
                self.end_list();
                Ok(())
            }
        }
    )*};
}

lists!(SerializeSeq: serialize_element, SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field);

macro_rules! objects {
    ($($trait:ident),*) => {$(
        impl ser::$trait for Open<'_, '_> {
            type Ok = ();
            type Error = Unspellable;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), Unspellable> {
                self.named(key, value)
            }

            fn end(self) -> Result<(), Unspellable> {
                self.end_object();
                Ok(())
            }
        }
    )*};
}

objects!(SerializeStruct, SerializeStructVariant);

/// An object whose keys are values, and where the newest key begins.
struct Keyed<'w, 'a>(Open<'w, 'a>, usize);

impl SerializeMap for Keyed<'_, '_> {
    type Ok = ();
    type Error = Unspellable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unspellable> {
        self.0.comma();
        let out = self.0.writer.out.len();
        self.1 = out;
        key.serialize(&mut *self.0.writer)?;
        match self.0.writer.out.get(out) {
            Some(b'"') => Ok(()),
            // As serde_json does: numbers and words become text.
            Some(b'0'..=b'9' | b'-' | b't' | b'f') => {
                self.0.writer.out.insert(out, b'"');
                self.0.writer.out.push(b'"');
                Ok(())
            }
            _ => Err(Unspellable("a key that is no text".into())),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unspellable> {
        self.0.member(self.1, value)
    }

    fn end(self) -> Result<(), Unspellable> {
        self.0.end_object();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn spelled<T: Serialize + ?Sized>(value: &T) -> String {
        let mut out = b"before".to_vec();
        canonical_into(value, &mut out).unwrap();
        String::from_utf8(out.split_off(6)).unwrap()
    }

    fn by_the_library<T: Serialize>(value: &T) -> String {
        serde_json_canonicalizer::to_string(value).unwrap()
    }

    #[derive(Serialize, Clone, Debug)]
    #[serde(tag = "type", content = "body")]
    enum Tagged {
        Unit,
        One(BTreeMap<u8, Option<bool>>),
        Named { z: i64, a: Vec<char>, é: () },
    }

    #[derive(Serialize, Clone, Debug)]
    enum Plain {
        Unit,
        One(f64),
        Two(u64, i64),
        Named { z: u8, a: &'static str },
    }

    #[test]
    fn every_shape_has_the_librarys_spelling() {
        let map = BTreeMap::from([(7u8, None), (10, Some(true))]);
        for value in [
            Tagged::Unit,
            Tagged::One(map),
            Tagged::Named {
                z: -9,
                a: vec!['"', '\u{1f}'],
                é: (),
            },
        ] {
            assert_eq!(spelled(&value), by_the_library(&value));
        }
        for value in [
            Plain::Unit,
            Plain::One(1e21),
            Plain::Two(u64::MAX, i64::MIN),
            Plain::Two((1 << 53) + 1, -(1 << 53)),
            Plain::Named { z: 1, a: "/\u{7f}" },
        ] {
            assert_eq!(spelled(&value), by_the_library(&value));
        }
        // RFC 8785, section 3.2.3: sorted by UTF-16, where a letter outside the first plane comes before U+FB33.
        let keys = json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7, "a": {"b\"": 1, "a\\": [], "a": {}, "ab": -0.0}});
        assert_eq!(spelled(&keys), by_the_library(&keys));
        assert!(canonical_into(&f64::NAN, &mut Vec::new()).is_err());
        assert!(canonical_into(&BTreeMap::from([(vec![1], 1)]), &mut Vec::new()).is_err());
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1000i64..1000).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "[\\x00-\\x7f]{0,12}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            "[a-c_]{0,3}",
            ".{0,3}",
            "[\\x00-\\x7f\u{fb33}\u{1f600}]{0,2}"
        ];
        leaf.prop_recursive(5, 60, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..8)
                    .prop_map(|all| Value::Object(all.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_has_the_librarys_spelling(value in values()) {
            let spelled = spelled(&value);
            prop_assert_eq!(&spelled, &by_the_library(&value));
            let mut room = Room::default();
            for _ in 0..2 {
                prop_assert_eq!(room.spell(&value).unwrap(), spelled.as_bytes());
            }
        }
    }
}
