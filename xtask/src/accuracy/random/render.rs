//! A random program as sources.

use std::fmt::Write as _;

use super::program::{HEADER, Item, Kind, Linkage, Node, Place, Program};

/// The name of the header.
pub(super) const HEADER_NAME: &str = "program.h";

/// All files, by name; the header comes first.
pub(super) fn files(program: &Program) -> Vec<(String, String)> {
    let mut files = vec![(HEADER_NAME.to_owned(), header(program))];
    for (unit, &cpp) in program.units.iter().enumerate() {
        files.push((source_name(unit, cpp), source(program, unit, cpp)));
    }
    files
}

/// The name of a source.
pub(super) fn source_name(unit: usize, cpp: bool) -> String {
    let name = ["one", "two", "three"].get(unit).unwrap_or(&"more");
    format!("{name}.{}", if cpp { "cpp" } else { "c" })
}

fn header(program: &Program) -> String {
    let mut text = include_str!("prelude.h").to_owned();
    text.push_str("\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n");
    for item in ordered(program, HEADER) {
        if item.class.place == Place::Header {
            text.push_str(&definition(program, item));
        }
    }
    text.push_str("#ifdef __cplusplus\n}\n#endif\n\n");
    let mut mangled = String::new();
    for item in &program.items {
        let Some((before, behind)) = item.class.declaration else {
            continue;
        };
        let constant = if item.constant { "const " } else { "" };
        let exported = match item.linkage {
            Linkage::Static => continue,
            Linkage::Global => "",
            Linkage::Exported => "__declspec(dllexport) ",
        };
        let name = &item.name;
        if item.unit == HEADER {
            let _ = writeln!(mangled, "{before}{name}{behind};");
        } else if item.mangled {
            let external = if item.class.is_function() {
                ""
            } else {
                "extern "
            };
            let _ = writeln!(
                mangled,
                "{external}{exported}{constant}{before}{name}{behind};"
            );
        } else {
            // C does not know a type that only C++ has.
            let to = if item.class.place == Place::Cpp {
                &mut mangled
            } else {
                &mut text
            };
            let _ = writeln!(to, "C {exported}{constant}{before}{name}{behind};");
        }
    }
    let _ = write!(text, "\n#ifdef __cplusplus\n{mangled}\n");
    for item in ordered(program, HEADER) {
        if item.class.place == Place::HeaderCpp {
            text.push_str(&definition(program, item));
        }
    }
    text.push_str("#endif\n");
    text
}

fn source(program: &Program, unit: usize, cpp: bool) -> String {
    let mut text = format!("#include \"{HEADER_NAME}\"\n\n");
    if !cpp {
        text.push_str("unsigned long _exception_code(void);\n");
    }
    let items = ordered(program, unit);
    for item in &items {
        let is_static = item.class.is_function() && item.linkage == Linkage::Static;
        if let Some((before, behind)) = item.class.declaration.filter(|_| is_static) {
            let _ = writeln!(text, "static {before}{}{behind};", item.name);
        }
    }
    text.push('\n');
    for item in items {
        text.push_str(&definition(program, item));
    }
    text
}

/// The items of a source in the order in which they are written.
fn ordered(program: &Program, unit: usize) -> Vec<&Item> {
    let mut items: Vec<&Item> = program.items.iter().filter(|it| it.unit == unit).collect();
    items.sort_by_key(|it| it.class.rank);
    items
}

fn definition(program: &Program, item: &Item) -> String {
    let mut text = String::new();
    let is_static = item.linkage == Linkage::Static && item.unit != HEADER;
    let is_class = item.class.place == Place::Cpp && !item.class.is_function();
    if is_static && is_class {
        text.push_str("namespace {\n");
    } else if is_static {
        text.push_str("static ");
    } else if item.linkage == Linkage::Exported && !is_class {
        text.push_str("__declspec(dllexport) ");
    }
    text.push_str(item.attribute);
    if item.constant {
        text.push_str("const ");
    }
    let mut writer = Writer {
        program,
        item,
        text,
        last: String::new(),
    };
    writer.node(&item.node, 0);
    let mut text = writer.text;
    text.push_str(if is_static && is_class {
        "\n}\n\n"
    } else {
        "\n\n"
    });
    text
}

struct Writer<'p> {
    program: &'p Program,
    item: &'p Item,
    text: String,
    /// What `@again` means.
    last: String,
}

impl Writer<'_> {
    fn node(&mut self, node: &Node, index: usize) {
        match &node.kind {
            Kind::Text(text) => self.text.push_str(text),
            Kind::Rule(_, parts) => {
                for part in parts {
                    self.node(part, index);
                }
            }
            Kind::List(_, parts) => {
                for (index, part) in parts.iter().enumerate() {
                    self.node(part, index);
                }
            }
            Kind::Int(value) => self.number(*value),
            Kind::Float(quarters, single) => {
                let (whole, part) = (quarters / 4, quarters % 4 * 25);
                let suffix = if *single { "f" } else { "" };
                let _ = write!(self.text, "{whole}.{part:02}{suffix}");
            }
            Kind::Str(value) => {
                self.last = format!("\"{value}\"");
                self.text.push_str(&self.last);
            }
            Kind::Name(_, id) => {
                let item = self.program.item(*id);
                self.last = item.map_or_else(|| "gone".to_owned(), |it| it.name.clone());
                self.text.push_str(&self.last);
            }
            Kind::Again => self.text.push_str(&self.last),
            Kind::Own => self.text.push_str(&self.item.name),
            Kind::Index => self.number(i64::try_from(index).unwrap_or(i64::MAX)),
            Kind::Fresh(number) => self.number(i64::from(*number)),
        }
    }

    fn number(&mut self, value: i64) {
        let _ = if value < 0 {
            write!(self.text, "({value})")
        } else {
            write!(self.text, "{value}")
        };
    }
}
