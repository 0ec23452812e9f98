//! From what is written to checked values: names refer to something, sizes are bounded.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use super::contents::from_hex;
use super::format::{
    ArgumentText, BackgroundText, BufferText, CallText, ExpectationText, FieldText, ReturnsText,
    ScenarioText,
};
use super::generate::{self, Ingredient};
use super::{
    Argument, Background, Buffer, Call, Expectation, Field, Function, Held, Returns, Scenario,
    Session,
};
use crate::error::Error;

/// Bytes of all buffers of one session together.
const MAX_BUFFERS: usize = 16 << 20;
const MAX_ARGUMENTS: usize = 64;
const MAX_TIMEOUT: u64 = 600_000;
const MAX_THREADS: usize = 32;
const MAX_ROUNDS: usize = 10_000;

pub(super) fn parse(text: &str, folder: &Path) -> Result<Scenario, Error> {
    let scenario: ScenarioText = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| {
            1 + text.as_bytes()[..span.start.min(text.len())]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count()
        });
        Error::scenario(format!("line {line}"), error.message())
    })?;
    if scenario.load.timeout_ms == 0 || scenario.load.timeout_ms > MAX_TIMEOUT {
        let message = format!("timeout-ms must be from 1 to {MAX_TIMEOUT}");
        return Err(Error::scenario("load", message));
    }
    let mut sessions = Vec::new();
    for (index, session) in scenario.sessions.into_iter().enumerate() {
        let name = session
            .name
            .unwrap_or_else(|| format!("session {}", index + 1));
        let mut read = read_session(name, session.buffers, session.calls, folder)?;
        read.patch_after = session.patch_after;
        if read.patch_after >= read.calls.len() {
            let message = format!("patch-after must be below {}", read.calls.len());
            return Err(Error::scenario(&read.name, message));
        }
        sessions.push(read);
    }
    let background = scenario
        .background
        .map(|b| read_background(b, folder))
        .transpose()?;
    let mut generated = Vec::new();
    for text in scenario.generated {
        generated.push(generate::expand(text)?);
    }
    Ok(Scenario {
        load: scenario.load,
        sessions,
        generated,
        background,
    })
}

fn read_background(text: BackgroundText, folder: &Path) -> Result<Background, Error> {
    let bounds = [
        ("threads", text.threads, MAX_THREADS),
        ("rounds", text.rounds, MAX_ROUNDS),
    ];
    for (key, value, most) in bounds {
        if value == 0 || value > most {
            let message = format!("{key} must be from 1 to {most}");
            return Err(Error::scenario("background", message));
        }
    }
    let session = read_session("background".to_owned(), text.buffers, text.calls, folder)?;
    let expects =
        |call: &Call| call.before.is_some() || call.after.is_some() || call.bind.is_some();
    if session.calls.iter().any(expects) {
        let message = "background calls take no expectation and bind nothing: each must do what \
                       base or patched code does";
        return Err(Error::scenario("background", message));
    }
    Ok(Background {
        threads: text.threads,
        rounds: text.rounds,
        session,
    })
}

fn read_session(
    name: String,
    buffers: BTreeMap<String, BufferText>,
    calls: Vec<CallText>,
    folder: &Path,
) -> Result<Session, Error> {
    if calls.is_empty() {
        return Err(Error::scenario(name, "no calls"));
    }
    let mut session = Session {
        name,
        patch_after: 0,
        buffers: Vec::new(),
        calls: Vec::new(),
    };
    let mut fields = Vec::new();
    for (key, text) in buffers {
        let place = format!("{}: buffer {key}", session.name);
        let bytes = read_bytes(&text, folder, &place)?;
        fields.push((key.clone(), text.set));
        session.buffers.push(Buffer {
            name: key,
            bytes,
            guard: text.guard,
            fields: Vec::new(),
        });
    }
    let total: usize = session
        .buffers
        .iter()
        .map(|buffer| buffer.bytes.len())
        .sum();
    if total > MAX_BUFFERS {
        let message = format!("buffers of {total} bytes; at most {MAX_BUFFERS}");
        return Err(Error::scenario(session.name, message));
    }
    for (index, (key, texts)) in fields.into_iter().enumerate() {
        let place = format!("{}: buffer {key}", session.name);
        let read = texts
            .into_iter()
            .map(|text| read_field(text, Some(&key), &session, &place));
        session.buffers[index].fields = read.collect::<Result<_, _>>()?;
    }
    for (index, text) in calls.into_iter().enumerate() {
        let place = format!("{}: call {}", session.name, index + 1);
        let call = read_call(text, &session, &place)?;
        session.calls.push(call);
    }
    Ok(session)
}

fn read_bytes(text: &BufferText, folder: &Path, place: &str) -> Result<Vec<u8>, Error> {
    let mut sources = Vec::new();
    if let Some(hex) = &text.hex {
        let bytes = from_hex(hex)
            .ok_or_else(|| Error::scenario(place, "hex: expected pairs of hexadecimal digits"))?;
        sources.push(bytes);
    }
    if let Some(text) = &text.text {
        let mut bytes = text.clone().into_bytes();
        bytes.push(0);
        sources.push(bytes);
    }
    let sizes = [
        text.zero,
        text.fill.as_ref().map(|fill| fill.count),
        text.size,
    ];
    if sizes.iter().flatten().any(|&size| size > MAX_BUFFERS) {
        return Err(Error::scenario(
            place,
            format!("at most {MAX_BUFFERS} bytes"),
        ));
    }
    sources.extend(text.zero.map(|count| vec![0; count]));
    sources.extend(text.fill.as_ref().map(|fill| vec![fill.byte; fill.count]));
    if let Some(file) = &text.file {
        let path = folder.join(file);
        let fail = |e: std::io::Error| Error::scenario(place, format!("{}: {e}", path.display()));
        let refuse = |what: &str| Error::scenario(place, format!("{}: {what}", path.display()));
        let too_long = || refuse(&format!("at most {MAX_BUFFERS} bytes"));
        let metadata = std::fs::metadata(&path).map_err(fail)?;
        // Opening a pipe can wait for ever, and a device need not end.
        if !metadata.is_file() {
            return Err(refuse("expected a file, found a folder, pipe or device"));
        }
        if metadata.len() > MAX_BUFFERS as u64 {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(&path).map_err(fail)?;
        // Some systems have files that are longer than they say.
        let most = MAX_BUFFERS as u64 + 1;
        opened.take(most).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() > MAX_BUFFERS {
            return Err(too_long());
        }
        sources.push(bytes);
    }
    let [bytes] = sources.as_mut_slice() else {
        let message = "expected exactly one of hex, text, zero, fill and file";
        return Err(Error::scenario(place, message));
    };
    if let Some(size) = text.size {
        if size < bytes.len() {
            let message = format!("size {size} is less than the {} bytes given", bytes.len());
            return Err(Error::scenario(place, message));
        }
        bytes.resize(size, 0);
    }
    Ok(std::mem::take(bytes))
}

fn read_field(
    text: FieldText,
    own: Option<&str>,
    session: &Session,
    place: &str,
) -> Result<Field, Error> {
    let mut values = Vec::new();
    let integers = [
        (1, text.u8.map(i64::from)),
        (2, text.u16.map(i64::from)),
        (4, text.u32.map(i64::from)),
        (4, text.i32.map(i64::from)),
        (8, text.i64),
    ];
    for (size, value) in integers {
        values.extend(value.map(|value| (size, Argument::Integer(value))));
    }
    values.extend(text.f64.map(|value| (8, Argument::Float(value))));
    if let Some(pointer) = &text.pointer {
        values.push((8, read_argument(pointer, session, place)?));
    }
    let message = "expected exactly one of u8, u16, u32, i32, i64, f64 and pointer";
    let [(size, value)] = values.as_slice() else {
        return Err(Error::scenario(place, format!("set: {message}")));
    };
    let name = text.buffer.as_deref().or(own);
    let name = name.ok_or_else(|| Error::scenario(place, "set: which buffer?"))?;
    let length = find_buffer(session, name, place)?.bytes.len();
    if text.at > length || length - text.at < *size {
        let message = format!(
            "set: offset {} lies outside buffer {name} of {length}",
            text.at
        );
        return Err(Error::scenario(place, message));
    }
    Ok(Field {
        buffer: name.to_owned(),
        at: text.at,
        size: *size,
        value: value.clone(),
    })
}

fn find_buffer<'s>(session: &'s Session, name: &str, place: &str) -> Result<&'s Buffer, Error> {
    let found = session.buffers.iter().find(|buffer| buffer.name == name);
    found.ok_or_else(|| Error::scenario(place, format!("no buffer `{name}`")))
}

fn read_argument(text: &ArgumentText, session: &Session, place: &str) -> Result<Argument, Error> {
    let reference = match text {
        ArgumentText::Integer(value) => return Ok(Argument::Integer(*value)),
        ArgumentText::Float(value) => return Ok(Argument::Float(*value)),
        ArgumentText::Reference(reference) => reference,
    };
    if let Some(name) = reference.strip_prefix('&') {
        let (name, offset) = name.split_once('+').unwrap_or((name, "0"));
        let length = find_buffer(session, name, place)?.bytes.len();
        let offset = offset
            .parse()
            .ok()
            .filter(|&offset| offset <= length)
            .ok_or_else(|| {
                let message = format!("`{reference}` lies outside the buffer of {length} bytes");
                Error::scenario(place, message)
            })?;
        let name = name.to_owned();
        return Ok(Argument::Buffer { name, offset });
    }
    if let Some(name) = reference.strip_prefix('#') {
        let length = find_buffer(session, name, place)?.bytes.len();
        return Ok(Argument::Integer(length as i64));
    }
    if let Some(name) = reference.strip_prefix('$') {
        let bound = session
            .calls
            .iter()
            .any(|call| call.bind.as_deref() == Some(name));
        if bound {
            return Ok(Argument::Bound(name.to_owned()));
        }
        return Err(Error::scenario(
            place,
            format!("no earlier call binds `{name}`"),
        ));
    }
    let message = format!("`{reference}`: expected &buffer, &buffer+offset, #buffer or $bound");
    Err(Error::scenario(place, message))
}

pub(super) fn read_function(
    function: Option<String>,
    rva: Option<u32>,
    fixed_rva: Option<u32>,
    place: &str,
) -> Result<Function, Error> {
    match (function, rva, fixed_rva) {
        (Some(name), None, None) => Ok(Function::Name(name)),
        (None, Some(base), fixed) => Ok(Function::Rva(base, fixed)),
        _ => Err(Error::scenario(place, "expected either function or rva")),
    }
}

fn read_call(text: CallText, session: &Session, place: &str) -> Result<Call, Error> {
    if text.args.len() > MAX_ARGUMENTS {
        return Err(Error::scenario(
            place,
            format!("at most {MAX_ARGUMENTS} arguments"),
        ));
    }
    if text.expect.is_some() && (text.before.is_some() || text.after.is_some()) {
        let message = "expect stands for before and after and excludes both";
        return Err(Error::scenario(place, message));
    }
    let expectation = |text: Option<ExpectationText>| {
        text.map(|text| read_expectation(text, session, place))
            .transpose()
    };
    let arguments = text
        .args
        .iter()
        .map(|text| read_argument(text, session, place));
    let fields = text
        .set
        .into_iter()
        .map(|text| read_field(text, None, session, place));
    Ok(Call {
        function: read_function(text.function, text.rva, text.fixed_rva, place)?,
        arguments: arguments.collect::<Result<_, _>>()?,
        result: text.result,
        bind: text.bind,
        fields: fields.collect::<Result<_, _>>()?,
        before: expectation(text.before.or_else(|| text.expect.clone()))?,
        after: expectation(text.after.or(text.expect))?,
    })
}

fn read_expectation(
    text: ExpectationText,
    session: &Session,
    place: &str,
) -> Result<Expectation, Error> {
    if text.fault.is_some() && (text.returns.is_some() || !text.buffers.is_empty()) {
        let message = "a call that faults returns nothing and leaves no buffers to look at";
        return Err(Error::scenario(place, message));
    }
    let returns = match text.returns {
        None => None,
        Some(ReturnsText::Integer(value)) => Some(Returns::Integer(value)),
        Some(ReturnsText::Float(value)) => Some(Returns::Float(value)),
        Some(ReturnsText::Word(word)) => match word.as_str() {
            "null" => Some(Returns::Null),
            "not-null" => Some(Returns::NotNull),
            _ => {
                let message = format!("returns: expected a number, null or not-null, not `{word}`");
                return Err(Error::scenario(place, message));
            }
        },
    };
    let mut buffers = BTreeMap::new();
    for (name, held) in text.buffers {
        let buffer = find_buffer(session, &name, place)?;
        let bytes = match (held.hex, held.text) {
            (Some(hex), None) => from_hex(&hex),
            (None, Some(text)) => Some(text.into_bytes()),
            _ => None,
        };
        let wrong = || Error::scenario(place, format!("buffer {name}: expected hex or text"));
        let bytes = bytes.ok_or_else(wrong)?;
        if held.at.saturating_add(bytes.len()) > buffer.bytes.len() {
            let message = format!("buffer {name} has only {} bytes", buffer.bytes.len());
            return Err(Error::scenario(place, message));
        }
        buffers.insert(name, Held { at: held.at, bytes });
    }
    Ok(Expectation {
        returns,
        fault: text.fault,
        buffers,
    })
}

/// How an argument of a generated call is made.
pub(super) fn ingredient(text: &ArgumentText, place: &str) -> Result<Ingredient, Error> {
    match text {
        ArgumentText::Integer(value) => Ok(Ingredient::Fixed(*value)),
        ArgumentText::Reference(text) if text.starts_with('&') => {
            Ok(Ingredient::Buffer(text[1..].to_owned()))
        }
        ArgumentText::Reference(text) if text.starts_with('#') => {
            Ok(Ingredient::SizeOf(text[1..].to_owned()))
        }
        _ => Err(Error::scenario(
            place,
            "expected an integer, &buffer, #buffer or a range",
        )),
    }
}
