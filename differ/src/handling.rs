//! What happens when an exception leaves a function: its unwind records, the handler they name,
//! and the data that belongs to the handler, as a list of facts.
//!
//! The facts are part of what a function means: a `catch` of another type, or a destructor that is
//! no longer called, changes nothing in the code around it. Addresses among the facts are compared
//! by meaning like any operand; everything else is a number that must be equal.
//!
//! Which handler it is, and so how its data looks, is told by its name. The data of a handler
//! that is not known here is `NotUnderstood`.

mod bytes;
mod compare;
mod cxx3;
mod cxx4;
mod itanium;
mod known;

use hpbuild_metadata::{FunctionId, Machine, Rva, Side};

use crate::image::{Function, Image};
use crate::pe::{RuntimeFunction, Unwind};
use crate::unwind::{ScopeTable, arm64, x64};
use bytes::Reader;

pub use bytes::packed;
pub use known::Handler;

/// The data of a handler that is not known is not looked at beyond this.
const MAX_OPAQUE: usize = 256;

/// One fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fact<S: Side> {
    /// What it is about.
    pub(crate) what: What,
    pub(crate) value: Value<S>,
}

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    /// Extent of an unwind entry, and how frames are undone.
    Unwind,
    /// The routine that is asked.
    Handler,
    /// Which code is in which state, or guarded by what.
    Range,
    /// What is done on the way out: a destructor, a `__finally`.
    Cleanup,
    /// A filter or the type that is caught.
    Catch,
    /// The body of a `catch`, and where it goes on.
    CatchBody,
    /// Where the stack cookie is.
    Cookie,
}

impl What {
    /// As a person reads it.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            What::Unwind => "unwind data",
            What::Handler => "exception handler",
            What::Range => "guarded code",
            What::Cleanup => "clean-up",
            What::Catch => "what is caught",
            What::CatchBody => "handler of what is caught",
            What::Cookie => "place of the stack cookie",
        }
    }
}

/// The value of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<S: Side> {
    /// The same in both images, or changed.
    Number(u64),
    /// An address of the image.
    Place(Rva<S>),
    /// A word of unknown kind: a number, or an address of the image.
    Opaque(u32),
}

pub(crate) use compare::{Difference, differences};

/// Exception data that is broken, or that of a handler that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotUnderstood;

/// Facts being gathered.
pub(super) struct Facts<'a, S: Side> {
    image: &'a Image<S>,
    function: &'a Function<S>,
    list: Vec<Fact<S>>,
    /// Table entries that may still be read. Tables describe code, so that more of them than it
    /// has bytes are not believed, however often they are told to be.
    left: u32,
}

/// All facts of a function, none for leaf functions; and whether all were understood.
pub(crate) fn facts<S: Side>(
    image: &Image<S>,
    id: FunctionId<S>,
) -> (Vec<Fact<S>>, Result<(), NotUnderstood>) {
    let function = image.function(id);
    let mut facts = Facts {
        image,
        function,
        list: Vec::new(),
        left: function.size.saturating_mul(4).saturating_add(256),
    };
    let understood = entries(image, function)
        .iter()
        .try_for_each(|entry| facts.entry(entry));
    (facts.list, understood)
}

/// The entries of the exception directory whose code begins in a function.
pub(crate) fn entries<'a, S: Side>(
    image: &'a Image<S>,
    function: &Function<S>,
) -> &'a [RuntimeFunction<S>] {
    let all = &image.pe.runtime_functions;
    let start = all.partition_point(|entry| entry.begin < function.rva);
    let end = u64::from(function.rva.get()) + u64::from(function.size);
    let count = all[start..].partition_point(|entry| u64::from(entry.begin.get()) < end);
    &all[start..start + count]
}

impl<'a, S: Side> Facts<'a, S> {
    /// Accounts for table entries about to be read.
    fn spend(&mut self, entries: u32) -> Result<(), NotUnderstood> {
        self.left = self.left.checked_sub(entries).ok_or(NotUnderstood)?;
        Ok(())
    }

    fn number(&mut self, what: What, value: impl Into<u64>) {
        self.list.push(Fact {
            what,
            value: Value::Number(value.into()),
        });
    }

    fn bytes(&mut self, what: What, bytes: &[u8]) {
        self.number(what, bytes.len() as u64);
        for part in bytes.chunks(8) {
            let value = part
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte));
            self.number(what, value);
        }
    }

    /// An address, where 0 stands for none.
    fn place(&mut self, what: What, rva: u32) {
        self.list.push(Fact {
            what,
            value: if rva == 0 {
                Value::Number(0)
            } else {
                Value::Place(Rva::new(rva))
            },
        });
    }

    /// An address in code: in the function itself, its end included, as an offset.
    fn code(&mut self, what: What, rva: u32) {
        match rva.checked_sub(self.function.rva.get()) {
            Some(offset) if offset <= self.function.size => self.number(what, offset),
            _ => self.place(what, rva),
        }
    }

    /// Where code ends: an address one past it is not that of what follows.
    fn code_end(&mut self, what: What, rva: u32) {
        match rva.checked_sub(self.function.rva.get()) {
            Some(offset) if offset <= self.function.size => self.number(what, offset),
            _ => self.place(what, rva.saturating_sub(1)),
        }
    }

    /// The bytes at an address of the image.
    fn reader(&self, rva: u32) -> Reader<'a> {
        Reader::new(self.image.pe.bytes_from(Rva::new(rva)))
    }

    fn entry(&mut self, entry: &RuntimeFunction<S>) -> Result<(), NotUnderstood> {
        self.code(What::Unwind, entry.begin.get());
        // On Arm64 a shared entry has no end of its own.
        let is_shared = matches!(entry.unwind, Unwind::Shared(_));
        if !(is_shared && self.image.pe.machine == Machine::Arm64) {
            self.code_end(What::Unwind, entry.end.get());
        }
        match entry.unwind {
            Unwind::Packed(word) => self.number(What::Unwind, word),
            Unwind::Info(place) => self.record(place.get())?,
            Unwind::Shared(place) => {
                // The entry that is shared is one of another function, which has its own facts.
                let begin = self.reader(place.get()).u32()?;
                self.code(What::Unwind, begin);
            }
        }
        Ok(())
    }

    fn record(&mut self, rva: u32) -> Result<(), NotUnderstood> {
        let bytes = self.image.pe.bytes_from(Rva::new(rva));
        let (handler, size) = match self.image.pe.machine {
            Machine::X64 => {
                let info = x64::UnwindInfo::read(bytes).map_err(|_| NotUnderstood)?;
                let codes = info.size() - if info.chain.is_some() { 12 } else { 0 };
                let codes = codes - if info.handler.is_some() { 4 } else { 0 };
                self.bytes(What::Unwind, bytes.get(..codes).ok_or(NotUnderstood)?);
                if let Some(chain) = info.chain {
                    self.code(What::Unwind, chain.begin);
                }
                (info.handler, info.size())
            }
            Machine::Arm64 => {
                let record = arm64::Record::read(bytes).map_err(|_| NotUnderstood)?;
                let codes = record.size - if record.handler.is_some() { 4 } else { 0 };
                self.bytes(What::Unwind, bytes.get(..codes).ok_or(NotUnderstood)?);
                (record.handler, record.size)
            }
        };
        match handler {
            Some(handler) => {
                let data = u32::try_from(size)
                    .ok()
                    .and_then(|size| rva.checked_add(size));
                self.handler(handler, data.ok_or(NotUnderstood)?)
            }
            None => Ok(()),
        }
    }

    /// The handler and its data, which begins at `data`.
    fn handler(&mut self, handler: u32, data: u32) -> Result<(), NotUnderstood> {
        self.place(What::Handler, handler);
        let Some(known) = Handler::at(self.image, Rva::new(handler)) else {
            return self.opaque(data);
        };
        let mut at = data;
        match known {
            Handler::Cxx3 { .. } => {
                let info = self.reader(at).u32()?;
                cxx3::facts(self, info)?;
                at += 4;
            }
            Handler::Cxx4 { .. } => {
                let info = self.reader(at).u32()?;
                cxx4::facts(self, info)?;
                at += 4;
            }
            Handler::Scopes { .. } => at = self.scopes(at)?,
            Handler::Itanium => return itanium::facts(self, data),
            Handler::Cookie => {}
        }
        if known.has_cookie() {
            self.cookie(at)?;
        }
        Ok(())
    }

    /// The data of a handler that is not known, as far as something else is known to start: words,
    /// each of which may be an address.
    fn opaque(&mut self, at: u32) -> Result<(), NotUnderstood> {
        let end = self
            .image
            .next_boundary(Rva::new(at))
            .ok_or(NotUnderstood)?;
        let mut data = self.reader(at);
        let size = (end.get() - at) as usize;
        if size > MAX_OPAQUE {
            return Err(NotUnderstood);
        }
        self.number(What::Handler, size as u64);
        for _ in 0..size / 4 {
            let word = data.u32()?;
            self.list.push(Fact {
                what: What::Handler,
                value: Value::Opaque(word),
            });
        }
        self.bytes(What::Handler, data.take(size % 4)?);
        Ok(())
    }

    fn scopes(&mut self, at: u32) -> Result<u32, NotUnderstood> {
        let bytes = self.image.pe.bytes_from(Rva::new(at));
        let table = ScopeTable::read(bytes).map_err(|_| NotUnderstood)?;
        self.spend(u32::try_from(table.scopes.len()).map_err(|_| NotUnderstood)?)?;
        self.number(What::Range, table.scopes.len() as u64);
        for scope in &table.scopes {
            self.code(What::Range, scope.begin);
            self.code_end(What::Range, scope.end);
            match (scope.handler, scope.target) {
                // A constant in place of a filter.
                (0 | 1, _) => self.number(What::Catch, scope.handler),
                (handler, 0) => self.place(What::Cleanup, handler),
                (handler, _) => self.place(What::Catch, handler),
            }
            match scope.target {
                0 => self.number(What::CatchBody, 0_u8),
                target => self.code(What::CatchBody, target),
            }
        }
        let size = u32::try_from(table.size()).map_err(|_| NotUnderstood)?;
        at.checked_add(size).ok_or(NotUnderstood)
    }

    /// `GS_HANDLER_DATA`: flags in the low bits of the cookie's offset, and for frames that are
    /// aligned the distance to the aligned base and the alignment (`gshandler.cpp` of the C
    /// runtime's published sources).
    fn cookie(&mut self, at: u32) -> Result<(), NotUnderstood> {
        const HAS_ALIGNMENT: u32 = 4;
        let mut data = self.reader(at);
        let words = if data.u32()? & HAS_ALIGNMENT == 0 {
            1
        } else {
            3
        };
        let mut data = self.reader(at);
        let words: Vec<u32> = (0..words).map(|_| data.u32()).collect::<Result<_, _>>()?;
        for word in words {
            self.number(What::Cookie, word);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
