//! The part of the D-Bus wire format that talking to systemd takes (D-Bus specification, "Message Protocol"): little
//! endian only, a handful of types, pure.

/// Method calls, and what comes back.
pub(super) const CALL: u8 = 1;
pub(super) const REPLY: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// No message from systemd is anywhere near this size.
pub(super) const MESSAGE_MAX: usize = 1 << 20;
/// The longest message there is (D-Bus specification, "Message Format").
const LONGEST: usize = 128 << 20;
/// Bytes that every message begins with: the fixed header and the length of its fields.
pub(super) const FIXED: usize = 16;

/// A value for a property, as the variant it travels in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `s`
    Text(String),
    /// `b`
    Flag(bool),
    /// `t`
    Number(u64),
    /// `i`
    Signal(i32),
    /// `as`
    Texts(Vec<String>),
    /// `au`
    Pids(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
}

/// A property of a unit.
pub(crate) type Property = (&'static str, Value);

/// One argument of a call.
#[derive(Debug, Clone)]
pub(super) enum Argument<'a> {
    Text(&'a str),
    Flag(bool),
    /// `a(sv)`
    Properties(&'a [Property]),
    /// `au` with one number.
    Pid(u32),
    /// `a(sa(sv))`, always empty: auxiliary units.
    NoUnits,
}

impl Argument<'_> {
    fn signature(&self) -> &'static str {
        match self {
            Self::Text(_) => "s",
            Self::Flag(_) => "b",
            Self::Properties(_) => "a(sv)",
            Self::Pid(_) => "au",
            Self::NoUnits => "a(sa(sv))",
        }
    }
}

/// Where a call goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub destination: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
}

/// Writes a method call.
pub(super) fn call(serial: u32, target: Target, member: &str, arguments: &[Argument<'_>]) -> Vec<u8> {
    let mut body = Writer::default();
    for argument in arguments {
        body.argument(argument);
    }
    let signature: String = arguments.iter().map(Argument::signature).collect();
    let mut out = Writer { bytes: vec![b'l', CALL, 0, 1] };
    out.number(body.bytes.len() as u32);
    out.number(serial);
    out.array(8, |fields| {
        fields.field(1, "o", target.path);
        fields.field(6, "s", target.destination);
        fields.field(2, "s", target.interface);
        fields.field(3, "s", member);
        if !signature.is_empty() {
            fields.field(8, "g", &signature);
        }
    });
    out.align(8);
    out.bytes.extend(body.bytes);
    out.bytes
}

/// Writes what a bus delivers from `sender`: an answer to `serial`, an error or a signal called `name`, with texts.
#[cfg(test)]
pub(super) fn answer((kind, sender): (u8, &str), serial: u32, name: &str, texts: &[&str]) -> Vec<u8> {
    let mut body = Writer::default();
    texts.iter().for_each(|text| body.text(text));
    let mut out = Writer { bytes: vec![b'l', kind, 0, 1] };
    out.number(body.bytes.len() as u32);
    out.number(1);
    out.array(8, |fields| {
        match kind {
            SIGNAL => fields.field(3, "s", name),
            ERROR => fields.field(4, "s", name),
            _ => {}
        }
        if kind != SIGNAL {
            fields.align(8);
            fields.bytes.push(5);
            fields.signature("u");
            fields.number(serial);
        }
        fields.field(7, "s", sender);
        fields.field(8, "g", &"s".repeat(texts.len()));
    });
    out.align(8);
    out.bytes.extend(body.bytes);
    out.bytes
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(text.len() as u8);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// Writes an array: its length counts neither itself nor the padding before the first element.
    fn array(&mut self, align: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0);
        let at = self.bytes.len() - 4;
        self.align(align);
        let start = self.bytes.len();
        elements(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn field(&mut self, code: u8, kind: &str, text: &str) {
        self.align(8);
        self.bytes.push(code);
        self.signature(kind);
        if kind == "g" { self.signature(text) } else { self.text(text) }
    }

    fn argument(&mut self, argument: &Argument<'_>) {
        match argument {
            Argument::Text(text) => self.text(text),
            Argument::Flag(flag) => self.number((*flag).into()),
            Argument::Pid(pid) => self.array(4, |out| out.number(*pid)),
            Argument::NoUnits => self.array(8, |_| {}),
            Argument::Properties(properties) => self.array(8, |out| {
                for (name, value) in *properties {
                    out.align(8);
                    out.text(name);
                    out.variant(value);
                }
            }),
        }
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Flag(flag) => {
                self.signature("b");
                self.number((*flag).into());
            }
            Value::Number(number) => {
                self.signature("t");
                self.align(8);
                self.bytes.extend(number.to_le_bytes());
            }
            Value::Signal(number) => {
                self.signature("i");
                self.number(number.cast_unsigned());
            }
            Value::Texts(texts) => {
                self.signature("as");
                self.array(4, |out| texts.iter().for_each(|text| out.text(text)));
            }
            Value::Pids(pids) => {
                self.signature("au");
                self.array(4, |out| pids.iter().for_each(|pid| out.number(*pid)));
            }
            Value::Bytes(bytes) => {
                self.signature("ay");
                self.array(1, |out| out.bytes.extend(bytes));
            }
        }
    }
}

/// What is of interest in a message that came in.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub kind: u8,
    /// The call that it answers.
    pub answers: u32,
    pub member: String,
    /// Name of an error.
    pub error: String,
    /// Whose it is, by the name that the bus gives each connection: nobody can choose or forge it.
    pub sender: String,
    /// The strings and object paths of the body, in order.
    pub texts: Vec<String>,
}

/// The length of a whole message, of either byte order, from its first [`FIXED`] bytes; `None` when it cannot be one.
pub(super) fn length(head: &[u8]) -> Option<usize> {
    let read = match head.first()? {
        b'l' => u32::from_le_bytes,
        b'B' => u32::from_be_bytes,
        _ => return None,
    };
    let number = |at: usize| Some(read(head.get(at..at + 4)?.try_into().ok()?) as usize);
    let total = (FIXED + number(12)?).next_multiple_of(8).checked_add(number(4)?)?;
    (total <= LONGEST).then_some(total)
}

/// True for the kinds that only whoever was called can send: the bus drops those that nobody waits for.
pub(super) fn is_answer(head: &[u8]) -> bool {
    matches!(head.get(1), Some(&(REPLY | ERROR)))
}

/// Reads a message; `None` when it is damaged, or not of this byte order.
pub(super) fn parse(bytes: &[u8]) -> Option<Message> {
    if bytes.first() != Some(&b'l') {
        return None;
    }
    let mut message = Message { kind: *bytes.get(1)?, ..Message::default() };
    let mut reader = Reader { bytes, at: FIXED - 4 };
    let end = reader.number()? as usize + FIXED;
    let mut signature = String::new();
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        let kind = reader.signature()?;
        let (mut number, mut text) = (0, String::new());
        match kind.as_str() {
            "u" => number = reader.number()?,
            "g" => text = reader.signature()?,
            "s" | "o" => text = reader.text()?,
            _ => return None,
        }
        match code {
            3 => message.member = text,
            4 => message.error = text,
            5 => message.answers = number,
            7 => message.sender = text,
            8 => signature = text,
            _ => {}
        }
    }
    reader.align(8);
    message.texts = reader.body(&signature);
    Some(message)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        self.byte().map(|_| text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?.into();
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        self.byte().map(|_| text)
    }

    /// The texts in front of the first type that is not needed here.
    fn body(&mut self, signature: &str) -> Vec<String> {
        let mut texts = Vec::new();
        for kind in signature.chars() {
            match kind {
                's' | 'o' => match self.text() {
                    Some(text) => texts.push(text),
                    None => break,
                },
                'u' | 'i' | 'b' => {
                    if self.number().is_none() {
                        break;
                    }
                }
                'v' => {
                    // One in another one is nothing that systemd says, and could go on for as long as the message.
                    let Some(inner) = self.signature().filter(|inner| inner != "v") else { break };
                    texts.extend(self.body(&inner));
                    break;
                }
                _ => break,
            }
        }
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANAGER: Target = Target { destination: "d.d", path: "/p", interface: "i.i" };

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let bytes = call(7, MANAGER, "Go", &[Argument::Text("ab"), Argument::Flag(true)]);
        let mut expected = vec![b'l', 1, 0, 1, 12, 0, 0, 0, 7, 0, 0, 0, 62, 0, 0, 0];
        expected.extend(b"\x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0");
        expected.truncate(16 + 11);
        expected.extend([0; 5]);
        expected.extend(b"\x06\x01s\0\x03\0\0\0d.d\0\0\0\0\0");
        expected.extend(b"\x02\x01s\0\x03\0\0\0i.i\0\0\0\0\0");
        expected.extend(b"\x03\x01s\0\x02\0\0\0Go\0\0\0\0\0\0");
        expected.truncate(16 + 16 + 16 + 16 + 11);
        expected.extend([0; 5]);
        expected.extend(b"\x08\x01g\0\x02sb\0");
        let fields = (expected.len() - 16) as u8;
        expected[12] = fields;
        expected.extend(b"\x02\0\0\0ab\0\0\x01\0\0\0");
        assert_eq!(bytes, expected);
        assert_eq!(length(&bytes[..FIXED]), Some(bytes.len()));
    }

    #[test]
    fn what_was_written_is_read() {
        let mut bytes = call(
            1,
            MANAGER,
            "JobRemoved",
            &[Argument::Flag(true), Argument::Text("/job/1"), Argument::Text("a.scope")],
        );
        let message = parse(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (CALL, "JobRemoved"));
        assert_eq!(message.texts, ["/job/1", "a.scope"]);
        for cut in 0..bytes.len() {
            // Never a panic, whatever is missing.
            let _ = (parse(&bytes[..cut]), length(&bytes[..cut]));
        }
        for at in 0..bytes.len() {
            bytes[at] ^= 0xff;
            let _ = (parse(&bytes), length(&bytes));
            bytes[at] ^= 0xff;
        }
    }

    #[test]
    fn properties_are_an_array_of_structures_with_variants() {
        let properties =
            [("Delegate", Value::Flag(true)), ("PIDs", Value::Pids(vec![9])), ("TasksMax", Value::Number(3))];
        let bytes = call(1, MANAGER, "M", &[Argument::Properties(&properties)]);
        let body = &bytes[bytes.len() - 80..];
        let mut expected = vec![72, 0, 0, 0, 0, 0, 0, 0];
        expected.extend(b"\x08\0\0\0Delegate\0\x01b\0\x01\0\0\0");
        expected.extend([0; 4]);
        expected.truncate(8 + 20);
        expected.extend([0; 4]);
        expected.extend(b"\x04\0\0\0PIDs\0\x02au\0\0\0\0\x04\0\0\0\x09\0\0\0");
        assert_eq!(body[..8 + 20 + 4], expected[..8 + 20 + 4]);
    }
}
