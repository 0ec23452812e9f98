//! One unit of DWARF to the few facts that matter here, addresses and references still as DWARF
//! has them (DWARF Debugging Information Format, versions 2 to 5; `gimli` does the decoding).
//!
//! A unit is a tree of entries. It is walked once, in order, with the entries that are open on a
//! stack of its own, so that no nesting is too deep.

mod types;

use std::sync::Arc;

use gimli::{
    AttributeValue, DebuggingInformationEntry, Dwarf, EndianSlice, LittleEndian, Operation, Unit,
    UnitHeader,
};

use super::budget::{Budget, Fault, Result};
use crate::types::dwarf::DwarfType;

pub(super) type Reader<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a> = DebuggingInformationEntry<Reader<'a>>;

/// Scopes that become part of a name.
const MAX_SCOPES: usize = 64;

/// What one unit says.
#[derive(Default)]
pub(super) struct UnitFacts {
    /// The source file, as the compiler was given it.
    pub(super) name: Box<str>,
    /// What compiled it.
    pub(super) producer: Box<str>,
    /// `DW_LANG_*`, 0 where none is given.
    pub(super) language: u16,
    /// The code of the unit, as (first address, address behind the last byte).
    pub(super) ranges: Vec<(u64, u64)>,
    pub(super) functions: Vec<Function>,
    /// Entries of functions that have no code by themselves.
    pub(super) bodiless: Vec<usize>,
    pub(super) variables: Vec<Variable>,
    /// Names by offset in `.debug_info`, for entries that take theirs from another.
    pub(super) named: Vec<(usize, Named)>,
    pub(super) types: Vec<(usize, DwarfType<usize>)>,
    /// Offset of the line program.
    pub(super) program: usize,
    /// (address, line), in the order of the line program; line 0 where nothing has one.
    pub(super) lines: Vec<(u64, u32)>,
}

/// A function that has code.
pub(super) struct Function {
    pub(super) offset: usize,
    /// Its code; the first one is where it is entered.
    pub(super) ranges: Vec<(u64, u64)>,
}

/// A variable that has an address.
pub(super) struct Variable {
    pub(super) offset: usize,
    pub(super) address: Address,
    /// The function it stands in.
    pub(super) function: Option<usize>,
    /// Where in the variable this is, in bytes, where an optimiser took it apart.
    pub(super) piece: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    Virtual(u64),
    /// Bytes from the start of the template for threads.
    Thread(u64),
}

/// What an entry for a function or variable is called.
pub(super) struct Named {
    /// The entry that says what this one leaves out (`DW_AT_specification`, `_abstract_origin`).
    pub(super) origin: Option<usize>,
    /// With its scopes.
    pub(super) name: Option<Box<str>>,
    pub(super) linkage_name: Option<Box<str>>,
    pub(super) external: bool,
    /// The type of a variable.
    pub(super) ty: Option<usize>,
}

/// An entry whose children are being read.
struct Open {
    depth: isize,
    kind: OpenKind,
    /// What it adds to the names of those in it.
    scope: Option<Box<str>>,
}

#[derive(Clone, Copy)]
enum OpenKind {
    /// Children belong to the type with this index in `types`.
    Type(usize),
    /// A function with its offset, and the index of its own type.
    Function(usize, Option<usize>),
    Plain,
}

/// Reads a unit. `is_first` tells of the offset of a
/// line program whether it has not been read with another unit.
pub(super) fn read<'a>(
    dwarf: &Dwarf<Reader<'a>>,
    header: UnitHeader<Reader<'a>>,
    is_first: impl Fn(usize) -> bool,
    budget: &Budget,
) -> Result<UnitFacts> {
    let unit = dwarf.unit(header)?;
    if let Some(name) = unit.dwo_name()? {
        let name = dwarf.attr_string(&unit, name)?;
        return Err(Fault::Split(name.to_string_lossy().into()));
    }
    let mut walk = Walk {
        dwarf,
        unit: &unit,
        budget,
        open: Vec::new(),
        facts: UnitFacts::default(),
        source: Arc::from(""),
    };
    let mut entries = unit.entries();
    while let Some(entry) = entries.next_dfs()? {
        walk.entry(entry)?;
    }
    let mut facts = walk.facts;
    if let Some(program) = &unit.line_program
        && is_first(program.header().offset().0)
    {
        facts.program = program.header().offset().0;
        let mut rows = program.clone().rows();
        while let Some((_, row)) = rows.next_row()? {
            let line = row.line().filter(|_| !row.end_sequence());
            let line = line.map_or(0, |line| u32::try_from(line.get()).unwrap_or(0));
            facts.lines.push((row.address(), line));
        }
    }
    Ok(facts)
}

struct Walk<'w, 'a> {
    dwarf: &'w Dwarf<Reader<'a>>,
    unit: &'w Unit<Reader<'a>>,
    budget: &'w Budget,
    open: Vec<Open>,
    facts: UnitFacts,
    /// The source that the unit was compiled from.
    source: Arc<str>,
}

impl<'a> Walk<'_, 'a> {
    fn entry(&mut self, entry: &Entry<'a>) -> Result<()> {
        while self
            .open
            .pop_if(|open| open.depth >= entry.depth())
            .is_some()
        {}
        let (mut kind, mut scope) = (OpenKind::Plain, None);
        match entry.tag() {
            gimli::DW_TAG_compile_unit | gimli::DW_TAG_partial_unit => self.unit_entry(entry)?,
            gimli::DW_TAG_namespace | gimli::DW_TAG_module => {
                scope = Some(match self.string(entry, gimli::DW_AT_name)? {
                    Some(name) => name,
                    None => "(anonymous namespace)".into(),
                });
            }
            gimli::DW_TAG_subprogram => (kind, scope) = self.function(entry)?,
            gimli::DW_TAG_variable => self.variable(entry)?,
            gimli::DW_TAG_member | gimli::DW_TAG_inheritance => self.member(entry)?,
            // What a variant of an enumeration holds belongs to the enumeration.
            gimli::DW_TAG_variant_part | gimli::DW_TAG_variant => {
                kind = self.open.last().map_or(kind, |open| open.kind);
            }
            gimli::DW_TAG_formal_parameter | gimli::DW_TAG_unspecified_parameters => {
                self.parameter(entry);
            }
            gimli::DW_TAG_subrange_type => self.dimension(entry),
            gimli::DW_TAG_enumerator => self.enumerator(entry)?,
            tag => {
                if let Some(found) = self.ty(entry, tag)? {
                    if let DwarfType::Definition(_) = found {
                        scope = self.string(entry, gimli::DW_AT_name)?;
                    }
                    kind = OpenKind::Type(self.facts.types.len());
                    self.facts.types.push((self.offset(entry), found));
                }
            }
        }
        if entry.has_children() {
            self.open.push(Open {
                depth: entry.depth(),
                kind,
                scope,
            });
        }
        Ok(())
    }

    fn offset(&self, entry: &Entry<'a>) -> usize {
        let offset = entry.offset().to_debug_info_offset(&self.unit.header);
        offset.map_or(usize::MAX, |offset| offset.0)
    }

    fn string(&self, entry: &Entry<'a>, name: gimli::DwAt) -> Result<Option<Box<str>>> {
        let Some(value) = entry.attr_value(name) else {
            return Ok(None);
        };
        // What another file holds is not known here, and not worth an error.
        if let AttributeValue::DebugStrRefSup(_) = value {
            return Ok(None);
        }
        let text = self.dwarf.attr_string(self.unit, value)?;
        self.budget.spend(text.len())?;
        Ok(Some(text.to_string_lossy().into()))
    }

    /// The entry that an attribute names; `None` for one outside the unit's own section.
    fn reference(&self, entry: &Entry<'a>, name: gimli::DwAt) -> Option<usize> {
        match entry.attr_value(name)? {
            AttributeValue::UnitRef(offset) => offset
                .to_debug_info_offset(&self.unit.header)
                .map(|offset| offset.0),
            AttributeValue::DebugInfoRef(offset) => Some(offset.0),
            _ => None,
        }
    }

    fn number(entry: &Entry<'a>, name: gimli::DwAt) -> Option<u64> {
        entry.attr_value(name)?.udata_value()
    }

    fn flag(entry: &Entry<'a>, name: gimli::DwAt) -> bool {
        matches!(entry.attr_value(name), Some(AttributeValue::Flag(true)))
    }

    fn unit_entry(&mut self, entry: &Entry<'a>) -> Result<()> {
        let name = self.string(entry, gimli::DW_AT_name)?;
        let producer = self.string(entry, gimli::DW_AT_producer)?;
        self.facts.name = name.unwrap_or_default();
        self.source = Arc::from(&*self.facts.name);
        self.facts.producer = producer.unwrap_or_default();
        if let Some(AttributeValue::Language(language)) = entry.attr_value(gimli::DW_AT_language) {
            self.facts.language = language.0;
        }
        self.facts.ranges = self.ranges(entry)?;
        Ok(())
    }

    fn ranges(&self, entry: &Entry<'a>) -> Result<Vec<(u64, u64)>> {
        // gimli 0.34 adds the two without looking.
        let start = match entry.attr_value(gimli::DW_AT_low_pc) {
            Some(value) => self.dwarf.attr_address(self.unit, value)?,
            None => None,
        };
        let size = Self::number(entry, gimli::DW_AT_high_pc);
        if let (Some(start), Some(size)) = (start, size) {
            let end = start.checked_add(size);
            end.ok_or(gimli::Error::AddressOverflow)?;
        }
        let mut found = Vec::new();
        let mut ranges = self.dwarf.die_ranges(self.unit, entry)?;
        while let Some(range) = ranges.next()? {
            self.budget.spend(1)?;
            if range.begin < range.end {
                found.push((range.begin, range.end));
            }
        }
        Ok(found)
    }

    /// `name` with the scopes around it.
    fn qualified(&self, name: Box<str>) -> Result<Box<str>> {
        let scopes = self.open.iter().rev().take(MAX_SCOPES);
        let mut parts: Vec<&str> = scopes.filter_map(|open| open.scope.as_deref()).collect();
        if parts.is_empty() {
            return Ok(name);
        }
        parts.reverse();
        parts.push(&name);
        let joined = parts.join("::");
        self.budget.spend(joined.len())?;
        Ok(joined.into())
    }

    fn named(&self, entry: &Entry<'a>) -> Result<Named> {
        let name = self.string(entry, gimli::DW_AT_name)?;
        let linkage_name = match self.string(entry, gimli::DW_AT_linkage_name)? {
            None => self.string(entry, gimli::DW_AT_MIPS_linkage_name)?,
            name => name,
        };
        Ok(Named {
            origin: self
                .reference(entry, gimli::DW_AT_specification)
                .or_else(|| self.reference(entry, gimli::DW_AT_abstract_origin)),
            name: name.map(|name| self.qualified(name)).transpose()?,
            linkage_name,
            external: Self::flag(entry, gimli::DW_AT_external),
            ty: self.reference(entry, gimli::DW_AT_type),
        })
    }

    fn function(&mut self, entry: &Entry<'a>) -> Result<(OpenKind, Option<Box<str>>)> {
        let offset = self.offset(entry);
        let named = self.named(entry)?;
        let virtuality = entry.attr_value(gimli::DW_AT_virtuality);
        if virtuality
            .is_some_and(|value| value != AttributeValue::Virtuality(gimli::DW_VIRTUALITY_none))
        {
            self.virtual_function(entry, offset)?;
        }
        let scope = self.string(entry, gimli::DW_AT_name)?;
        // One that takes its name from another takes its type, too.
        let own_type = named.origin.is_none().then(|| {
            let index = self.facts.types.len();
            let found = DwarfType::Function {
                result: named.ty,
                parameters: Vec::new(),
                variadic: false,
            };
            self.facts.types.push((offset, found));
            index
        });
        self.facts.named.push((offset, named));
        let mut ranges = self.ranges(entry)?;
        if ranges.is_empty() {
            self.facts.bodiless.push(offset);
        } else {
            // Where it is entered may be said apart.
            let entered = match entry.attr_value(gimli::DW_AT_entry_pc) {
                Some(value) => self.dwarf.attr_address(self.unit, value)?,
                None => None,
            };
            let first = ranges.iter().position(|range| Some(range.0) == entered);
            ranges.swap(0, first.unwrap_or(0));
            self.facts.functions.push(Function { offset, ranges });
        }
        Ok((OpenKind::Function(offset, own_type), scope))
    }

    /// The function that the open entries stand in.
    fn function_around(&self) -> Option<usize> {
        self.open.iter().rev().find_map(|open| match open.kind {
            OpenKind::Function(offset, _) => Some(offset),
            _ => None,
        })
    }

    fn variable(&mut self, entry: &Entry<'a>) -> Result<()> {
        let address = self.address(entry)?;
        let pieces = match address {
            Some(_) => Vec::new(),
            None => self.pieces(entry)?,
        };
        let function = self.function_around();
        // Most variables live in registers and on the stack. Those of a function that is inlined
        // elsewhere may have an address there, and their names here.
        let may_be_origin = entry.has_attr(gimli::DW_AT_name)
            && !entry.has_attr(gimli::DW_AT_const_value)
            && !entry.has_attr(gimli::DW_AT_location);
        if address.is_none() && pieces.is_empty() && !may_be_origin {
            return Ok(());
        }
        let offset = self.offset(entry);
        let mut named = self.named(entry)?;
        if function.is_some() && named.name.is_some() {
            named.name = self.string(entry, gimli::DW_AT_name)?;
        }
        self.facts.named.push((offset, named));
        let whole = address.map(|address| (address, None));
        let pieces = pieces.into_iter().map(|(address, at)| (address, Some(at)));
        for (address, piece) in whole.into_iter().chain(pieces) {
            self.facts.variables.push(Variable {
                offset,
                address,
                function,
                piece,
            });
        }
        Ok(())
    }

    /// The addresses of what an optimiser left of a variable that it took apart, and where in the variable
    /// each is, in bytes.
    fn pieces(&self, entry: &Entry<'a>) -> Result<Vec<(Address, u64)>> {
        let Some(AttributeValue::Exprloc(expression)) = entry.attr_value(gimli::DW_AT_location)
        else {
            return Ok(Vec::new());
        };
        let mut operations = expression.operations(self.unit.encoding());
        let (mut found, mut at, mut address) = (Vec::new(), 0_u64, None);
        while let Some(operation) = operations.next()? {
            match operation {
                Operation::Address { address: start } => address = Some(start),
                Operation::AddressIndex { index } => {
                    address = Some(self.dwarf.address(self.unit, index)?);
                }
                Operation::Piece {
                    size_in_bits,
                    bit_offset: None,
                } => {
                    found.extend(address.take().map(|it| (Address::Virtual(it), at)));
                    at = at.saturating_add(size_in_bits / 8);
                }
                // Nothing else is known of such a variable.
                _ => return Ok(Vec::new()),
            }
        }
        Ok(found)
    }

    /// The address of a variable that always has the same one.
    fn address(&self, entry: &Entry<'a>) -> Result<Option<Address>> {
        let Some(AttributeValue::Exprloc(expression)) = entry.attr_value(gimli::DW_AT_location)
        else {
            return Ok(None);
        };
        let mut operations = expression.operations(self.unit.encoding());
        let start = match operations.next()? {
            Some(Operation::Address { address }) => address,
            Some(Operation::AddressIndex { index } | Operation::ConstantIndex { index }) => {
                self.dwarf.address(self.unit, index)?
            }
            Some(Operation::UnsignedConstant { value }) => {
                return Ok(match operations.next()? {
                    Some(Operation::TLS) => Some(Address::Thread(value)),
                    _ => None,
                });
            }
            _ => return Ok(None),
        };
        Ok(match operations.next()? {
            None => Some(Address::Virtual(start)),
            Some(Operation::TLS) => Some(Address::Thread(start)),
            // A variable that was merged with others.
            Some(Operation::PlusConstant { value }) if operations.next()?.is_none() => {
                start.checked_add(value).map(Address::Virtual)
            }
            _ => None,
        })
    }
}
