//! What a type is made of, in words: evidence for people who have to see what differs.

use ms_pdb::types::fields::Field;
use ms_pdb::types::{TypeData, TypeIndex};

use super::{CodeViewTypes, MAX_DEPTH};

/// A part of a type: a member or base class, a parameter or result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its name, or what it is.
    pub(crate) name: String,
    /// Its type, and where it lies.
    pub(crate) words: String,
    /// Hash of the layout of its type.
    pub(crate) layout: u64,
}

/// What tells two lists of parts apart: one that is gone, is new, is another, or whose type is laid
/// out otherwise, in this order; `None` where nothing does.
pub(crate) fn difference(before: &[Part], after: &[Part]) -> Option<String> {
    let in_list = |list: &[Part], name: &str| list.iter().any(|part| part.name == name);
    if let Some(gone) = before.iter().find(|part| !in_list(after, &part.name)) {
        let mut new = after.iter().filter(|part| !in_list(before, &part.name));
        if let Some(new) = new.find(|it| (&it.words, it.layout) == (&gone.words, gone.layout)) {
            return Some(format!(
                "{} is called {} ({})",
                gone.name, new.name, gone.words
            ));
        }
        return Some(format!("{}: {} before, none after", gone.name, gone.words));
    }
    if let Some(new) = after.iter().find(|part| !in_list(before, &part.name)) {
        return Some(format!("{}: none before, {} after", new.name, new.words));
    }
    let mut pairs = before.iter().filter_map(|b| {
        let f = after.iter().find(|part| part.name == b.name)?;
        Some((b, f))
    });
    if let Some((b, f)) = pairs.clone().find(|(b, f)| b.words != f.words) {
        return Some(format!("{}: {} before, {} after", b.name, b.words, f.words));
    }
    let (b, _) = pairs.find(|(b, f)| b.layout != f.layout)?;
    Some(format!(
        "{}: {}, which is laid out otherwise",
        b.name, b.words
    ))
}

/// The parts of a function's type.
pub(super) fn of_function<R: Copy>(
    result: R,
    parameters: impl IntoIterator<Item = R>,
    words: impl Fn(R) -> (String, u64),
) -> Vec<Part> {
    let part = |name: String, ty: R| {
        let (words, layout) = words(ty);
        Part {
            name,
            words,
            layout,
        }
    };
    let mut parts = vec![part("the result".to_owned(), result)];
    let parameters = (1..).zip(parameters);
    parts.extend(parameters.map(|(number, ty)| part(format!("parameter {number}"), ty)));
    parts
}

impl CodeViewTypes {
    /// The members and base classes of a structure or union, or the result, parameters and calling
    /// convention of a function; empty for anything else.
    pub(crate) fn parts(&self, index: u32) -> Vec<Part> {
        let (result, list, call, object) = match self.data(TypeIndex(index)) {
            Some(TypeData::Proc(it)) => (it.return_value.get(), it.arg_list.get(), it.call, None),
            Some(TypeData::MemberFunc(it)) => {
                let object = Some(it.this.get());
                (it.return_value.get(), it.arg_list.get(), it.call, object)
            }
            _ => return self.member_parts(index),
        };
        let parameters = match self.data(list) {
            Some(TypeData::ArgList(list)) => list.args.iter().map(|it| it.get()).collect(),
            _ => Vec::new(),
        };
        let words = |index: TypeIndex| (self.words(index, 0), self.layout_hash(index.0));
        let mut parts = of_function(result, parameters, words);
        let plain = |name: &str, words: String| Part {
            name: name.to_owned(),
            words,
            layout: 0,
        };
        parts.push(plain("the calling convention", format!("number {call:#x}")));
        parts.extend(object.map(|this| plain("the object", self.words(this, 0))));
        parts
    }

    fn member_parts(&self, index: u32) -> Vec<Part> {
        let part = |name: String, ty: TypeIndex, offset: Option<u32>| {
            let place = offset.map_or(String::new(), |offset| format!(" at +{offset:#x}"));
            Part {
                name,
                words: format!("{}{place}", self.words(ty, 0)),
                layout: self.layout_hash(ty.0),
            }
        };
        let members = self.members(index).into_iter();
        let parts = members.filter_map(|member| match member {
            Field::Member(member) => {
                let name = String::from_utf8_lossy(member.name).into_owned();
                Some(part(name, member.ty, u32::try_from(member.offset).ok()))
            }
            Field::BaseClass(base) => {
                let name = format!("base class {}", self.words(base.ty, 0));
                Some(part(name, base.ty, u32::try_from(base.offset).ok()))
            }
            Field::DirectVirtualBaseClass(base) => {
                let ty = base.fixed.btype.get();
                Some(part(
                    format!("virtual base class {}", self.words(ty, 0)),
                    ty,
                    None,
                ))
            }
            Field::VFuncTable(_) => Some(Part {
                name: "the pointer to virtual functions".to_owned(),
                words: "one".to_owned(),
                layout: 0,
            }),
            _ => None,
        });
        parts.collect()
    }

    /// A type as a person writes it, or nearly so.
    pub(super) fn words(&self, index: TypeIndex, depth: u32) -> String {
        if self.stream.is_primitive(index) {
            return primitive(index.0);
        }
        if depth > MAX_DEPTH {
            return "...".to_owned();
        }
        match self.data(index) {
            Some(TypeData::Pointer(pointer)) => {
                format!("{}*", self.words(pointer.fixed.ty.get(), depth + 1))
            }
            Some(TypeData::Modifier(modifier)) => {
                self.words(modifier.underlying_type.get(), depth + 1)
            }
            Some(TypeData::Array(array)) => {
                let element = array.fixed.element_type.get();
                let size = self.size_at(element, 0).filter(|size| *size > 0);
                let bytes = u32::try_from(array.len).ok();
                let count = bytes.zip(size).map(|(bytes, size)| bytes / size);
                let count = count.map_or(String::new(), |count| count.to_string());
                format!("{}[{count}]", self.words(element, depth + 1))
            }
            Some(TypeData::Bitfield(bits)) => {
                let ty = self.words(bits.underlying_type.get(), depth + 1);
                format!("{ty} of {} bits from bit {}", bits.length, bits.position)
            }
            Some(TypeData::Struct(it)) => it.name.to_string(),
            Some(TypeData::Union(it)) => it.name.to_string(),
            Some(TypeData::Enum(it)) => it.name.to_string(),
            Some(TypeData::Proc(_) | TypeData::MemberFunc(_)) => "function".to_owned(),
            _ => format!("type {:#x}", index.0),
        }
    }
}

/// The name of a type that has no record: subtype and mode are bits of its index.
fn primitive(index: u32) -> String {
    let name = match index & 0xff {
        0x03 => "void",
        0x10 | 0x68 => "signed char",
        0x20 | 0x69 => "unsigned char",
        0x70 => "char",
        0x11 | 0x72 => "short",
        0x21 | 0x73 => "unsigned short",
        0x71 => "wchar_t",
        0x7a => "char16_t",
        0x7b => "char32_t",
        0x7c => "char8_t",
        0x12 => "long",
        0x22 => "unsigned long",
        0x74 => "int",
        0x75 => "unsigned int",
        0x13 | 0x76 => "__int64",
        0x23 | 0x77 => "unsigned __int64",
        0x40 => "float",
        0x41 => "double",
        0x30 => "bool",
        0x08 => "HRESULT",
        _ => return format!("type {index:#x}"),
    };
    match (index >> 8) & 0xf {
        0 => name.to_owned(),
        _ => format!("{name}*"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, difference};

    fn part(name: &str, words: &str, layout: u64) -> Part {
        Part {
            name: name.into(),
            words: words.into(),
            layout,
        }
    }

    #[test]
    fn what_is_new_or_gone_is_told_before_what_it_moves() {
        let (first, second) = (
            part("low", "int at +0x0", 1),
            part("high", "int at +0x4", 1),
        );
        let moved = part("high", "int at +0x8", 1);
        let before = [first.clone(), second.clone()];
        let told = |after: &[Part]| difference(&before, after);
        assert_eq!(told(&before), None);
        let grown = [
            first.clone(),
            part("owner", "char* at +0x4", 2),
            moved.clone(),
        ];
        let text = "owner: none before, char* at +0x4 after";
        assert_eq!(told(&grown).as_deref(), Some(text));
        let text = "high: int at +0x4 before, none after";
        assert_eq!(told(std::slice::from_ref(&first)).as_deref(), Some(text));
        let text = "high: int at +0x4 before, int at +0x8 after";
        assert_eq!(told(&[first.clone(), moved]).as_deref(), Some(text));
        let inner = part("low", "int at +0x0", 2);
        let text = "low: int at +0x0, which is laid out otherwise";
        assert_eq!(told(&[inner, second]).as_deref(), Some(text));
    }
}
