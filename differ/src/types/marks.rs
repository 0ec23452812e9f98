//! Which types have to do with functions that are looked for: those that are declared in one or
//! made of such, and what holds them, leads to them, takes or returns them.

use std::collections::BTreeSet;

use ms_pdb::types::fields::Field;
use ms_pdb::types::{TypeData, TypeIndex};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{CodeViewTypes, MAX_DEPTH, class_of_member, is_hash};
use crate::image::Mention;
use crate::names::Functions;

/// How compilers begin the name of a lambda's type.
const LAMBDA: &str = "<lambda";

/// `LF_POINTER` of references (`CV_ptrmode_e`): to an object of the program's, not to just any memory.
const REFERENCES: [u32; 2] = [1, 4];

/// What source code can do with a type of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Write its name in a cast.
    Named,
    /// Not write its name, but have the compiler say it (`decltype`).
    Lambda,
    /// Neither.
    Closure,
}

/// The function that a type has to do with.
#[derive(Clone, Copy, Debug)]
struct Mark {
    function: u32,
    kind: Kind,
}

/// What the records of one PDB tell. Functions go by their index among those that are looked for.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    types: FxHashMap<u32, Mark>,
    items: FxHashMap<u32, u32>,
    /// Functions whose types are parts of others than their own, or of another function's as well.
    pub(crate) spread: BTreeSet<u32>,
    /// Whether some records say nothing about what they are, so that nothing is known of any function.
    pub(crate) is_opaque: bool,
    /// Pointers, without those to the object that a method is called for.
    pointers: Vec<u32>,
    /// By the words that are the names of types in functions, as far as they can be written: these
    /// functions.
    pub(crate) words: FxHashMap<String, Vec<u32>>,
    /// By lines of sources: the functions with a lambda there.
    pub(crate) lines: FxHashMap<u32, Vec<u32>>,
    /// Functions with lambdas of which no line is known.
    pub(crate) placeless: BTreeSet<u32>,
    /// By functions: what the code of their lambdas is called, and of their closures with captures.
    pub(crate) bodies: FxHashMap<u32, Vec<String>>,
}

impl Marks {
    /// The function that a type has to do with.
    pub(crate) fn of_type(&self, index: u32) -> Option<u32> {
        self.types.get(&index).map(|mark| mark.function)
    }

    /// The function that a record inside a procedure has to do with.
    pub(crate) fn of_mention(&self, mention: Mention) -> Option<u32> {
        match mention.is_item {
            true => self.items.get(&mention.index).copied(),
            false => self.of_type(mention.index),
        }
    }

    /// Whether a variable of this type leads to where code may have put an object at any time, and not
    /// only by a closure's parameter.
    pub(crate) fn is_of_c(&self, index: u32) -> bool {
        let mark = self.types.get(&index);
        mark.is_some_and(|mark| mark.kind != Kind::Closure)
    }

    /// The functions to whose types there are pointers that may lead anywhere: none of those through
    /// which methods get their objects. What is no pointer of a type that can be named may be one of
    /// the latter, too: `receivers`.
    pub(crate) fn pointed_to(&self, receivers: &FxHashSet<u32>) -> BTreeSet<u32> {
        let marks = self.pointers.iter().filter_map(|index| {
            let mark = self.types.get(index)?;
            let is_receiver = mark.kind == Kind::Lambda && receivers.contains(index);
            (mark.kind != Kind::Closure && !is_receiver).then_some(mark.function)
        });
        marks.collect()
    }

    /// Of two things in one record; where they are of two functions, neither's types are its own.
    fn both(&mut self, first: Option<Mark>, second: Option<Mark>) -> Option<Mark> {
        if let (Some(first), Some(second)) = (first, second)
            && first.function != second.function
        {
            self.spread.extend([first.function, second.function]);
        }
        match (first, second) {
            // The kind that lets code do more.
            (Some(mark), Some(Mark { kind, .. })) if kind == Kind::Named => {
                Some(Mark { kind, ..mark })
            }
            (first, second) => first.or(second),
        }
    }
}

impl CodeViewTypes {
    /// What has to do with `functions`, by one look at every record.
    pub(crate) fn marks(&self, functions: &Functions<'_>) -> Marks {
        let mut marks = Marks::default();
        let mut receivers = FxHashSet::default();
        let mut pointers = Vec::new();
        let mut lambdas = FxHashSet::default();
        for index in self.stream.indexes() {
            let Some(data) = self.data(index) else {
                marks.is_opaque = true;
                continue;
            };
            match &data {
                TypeData::MemberFunc(it) => {
                    receivers.insert(it.this.get().0);
                }
                TypeData::Pointer(it) if !REFERENCES.contains(&it.fixed.attr().mode()) => {
                    pointers.push(index.0);
                }
                _ => {}
            }
            let mut mark = self.mark_of_parts(index, &data, &mut marks);
            if let Some((plain, unique, is_defined)) = names_of(&data) {
                let own = mark_of_names(&plain, unique.as_deref(), functions, &mut marks);
                // Where it is another's, that one's objects hold what is the function's.
                let other = mark.filter(|it| own.is_none_or(|own| own.function != it.function));
                marks.spread.extend(other.map(|it| it.function));
                mark = own;
                if let Some(mark) = own.filter(|_| is_defined) {
                    let word = plain.rsplit("::").next().unwrap_or(&plain);
                    if word.starts_with(LAMBDA) {
                        lambdas.insert(index.0);
                        let bodies = marks.bodies.entry(mark.function).or_default();
                        bodies.push(format!("{plain}::operator()"));
                    } else if mark.kind == Kind::Closure && self.size(index.0).is_some() {
                        let body = code_of_closure(&plain, functions, mark.function);
                        let bodies = marks.bodies.entry(mark.function).or_default();
                        bodies.extend(body);
                    } else if mark.kind == Kind::Named && !word.contains('<') {
                        let known = marks.words.entry(word.to_owned()).or_default();
                        known.push(mark.function);
                    }
                }
            }
            if let Some(mark) = mark {
                marks.types.insert(index.0, mark);
            }
        }
        marks.pointers = pointers;
        let is_pointer = |it: &u32| !receivers.contains(it) && marks.types.contains_key(it);
        marks.pointers.retain(is_pointer);
        self.mark_items(functions, lambdas, &mut marks);
        marks
    }

    /// What a record has to do with by the records that it names.
    fn mark_of_parts(
        &self,
        index: TypeIndex,
        data: &TypeData<'_>,
        marks: &mut Marks,
    ) -> Option<Mark> {
        let mut parts = Vec::new();
        let mut add = |part: TypeIndex| parts.push(part);
        match data {
            TypeData::Array(it) => add(it.fixed.element_type.get()),
            TypeData::Modifier(it) => add(it.underlying_type.get()),
            TypeData::Bitfield(it) => add(it.underlying_type.get()),
            TypeData::Pointer(it) => {
                add(it.fixed.ty.get());
                class_of_member(it).into_iter().for_each(&mut add);
            }
            TypeData::Alias(it) => add(it.utype),
            TypeData::Proc(it) => [it.return_value, it.arg_list]
                .iter()
                .for_each(|it| add(it.get())),
            TypeData::MemberFunc(it) => [it.return_value, it.class, it.this, it.arg_list]
                .iter()
                .for_each(|it| add(it.get())),
            TypeData::ArgList(it) => it.args.iter().for_each(|it| add(it.get())),
            TypeData::Struct(it) => add(it.fixed.field_list.get()),
            TypeData::Union(it) => add(it.fixed.fields.get()),
            TypeData::FieldList(list) => {
                for field in list.iter() {
                    match field {
                        Field::Member(it) => add(it.ty),
                        Field::StaticMember(it) => add(it.ty),
                        Field::BaseClass(it) => add(it.ty),
                        Field::DirectVirtualBaseClass(it) => add(it.fixed.btype.get()),
                        Field::IndirectVirtualBaseClass(it) => add(it.fixed.btype.get()),
                        Field::Index(it) => add(it),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        let mut found = None;
        for part in parts {
            if self.stream.is_primitive(part) {
                continue;
            }
            // Records name those before them alone; otherwise one look is not enough.
            marks.is_opaque |= part >= index;
            let mark = marks.types.get(&part.0).copied();
            found = marks.both(found, mark);
        }
        found
    }

    /// The items, most of which are functions; and the lines of lambdas.
    fn mark_items(
        &self,
        functions: &Functions<'_>,
        mut lambdas: FxHashSet<u32>,
        marks: &mut Marks,
    ) {
        for index in self.items.indexes() {
            let data = self.items.record(index).and_then(|it| it.parse().ok());
            let (ty, line) = match data {
                Some(TypeData::UdtSrcLine(it)) => (it.ty.get().0, it.line.get()),
                Some(TypeData::UdtModSrcLine(it)) => (it.ty.get().0, it.line.get()),
                Some(TypeData::FuncId(_) | TypeData::MFuncId(_)) => {
                    let mut found = Vec::new();
                    if let Some(name) = self.item_name(index.0) {
                        functions.add_mentioned(&name, &mut found);
                    }
                    found.extend(marks.of_type(self.function_type(index.0, true)));
                    marks.add_item(index.0, &found);
                    continue;
                }
                _ => continue,
            };
            if lambdas.remove(&ty)
                && let Some(function) = marks.of_type(ty)
            {
                marks.lines.entry(line).or_default().push(function);
            }
        }
        let left: Vec<u32> = lambdas.iter().filter_map(|it| marks.of_type(*it)).collect();
        marks.placeless.extend(left);
    }

    /// Whether values of this type are pointers or references.
    pub(crate) fn is_pointer(&self, index: u32) -> bool {
        let mut index = TypeIndex(index);
        for _ in 0..MAX_DEPTH {
            match self.data(index) {
                Some(TypeData::Pointer(_)) => return true,
                Some(TypeData::Modifier(it)) => index = it.underlying_type.get(),
                Some(TypeData::Array(it)) => index = it.fixed.element_type.get(),
                _ => return false,
            }
        }
        true
    }

    /// The plain and the unique name of a structure or union.
    pub(crate) fn names_of(&self, index: u32) -> Option<(String, Option<String>)> {
        match self.data(TypeIndex(index))? {
            TypeData::Enum(_) => None,
            data => names_of(&data).map(|(plain, unique, _)| (plain, unique)),
        }
    }
}

impl Marks {
    fn add_item(&mut self, index: u32, found: &[u32]) {
        let Some(first) = found.first() else {
            return;
        };
        if found.iter().any(|it| it != first) {
            self.spread.extend(found);
        }
        self.items.insert(index, *first);
    }
}

/// What the code of a closure of a function is called, by the name of its type.
fn code_of_closure(plain: &str, functions: &Functions<'_>, function: u32) -> Option<String> {
    let own = plain.split('<').next().unwrap_or(plain);
    let (path, number) = own.rsplit_once("::closure_env$")?;
    let mut found = Vec::new();
    functions.add_mentioned(path, &mut found);
    found
        .contains(&function)
        .then(|| format!("{path}::closure${number}"))
}

/// What a type has to do with by its names.
fn mark_of_names(
    plain: &str,
    unique: Option<&str>,
    functions: &Functions<'_>,
    marks: &mut Marks,
) -> Option<Mark> {
    let mut found = Vec::new();
    functions.add_mentioned(plain, &mut found);
    if let Some(unique) = unique {
        functions.add_mentioned(unique, &mut found);
        // A hash of what would be too long.
        marks.is_opaque |= unique.contains("??@");
    }
    let own = plain.rsplit("::").next().unwrap_or(plain);
    let kind = match unique {
        Some(unique) if is_hash(unique.as_bytes()) => Kind::Closure,
        // Of what is declared within a lambda the name can be written there.
        Some(unique)
            if unique.contains(LAMBDA) && (own.starts_with(LAMBDA) || own.ends_with('>')) =>
        {
            Kind::Lambda
        }
        _ => Kind::Named,
    };
    let function = *found.first()?;
    if found.iter().any(|it| *it != function) {
        marks.spread.extend(found);
    }
    Some(Mark { function, kind })
}

/// The plain and the unique name of a structure, union or enumeration, and whether it is defined here.
pub(super) fn names_of(data: &TypeData<'_>) -> Option<(String, Option<String>, bool)> {
    let (name, unique, properties) = match data {
        TypeData::Struct(it) => (it.name, it.unique_name, it.fixed.property.get()),
        TypeData::Union(it) => (it.name, it.unique_name, it.fixed.property.get()),
        TypeData::Enum(it) => (it.name, it.unique_name, it.fixed.property.get()),
        _ => return None,
    };
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    Some((text(name), unique.map(|it| text(it)), !properties.fwdref()))
}
