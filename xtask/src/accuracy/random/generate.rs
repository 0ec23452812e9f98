//! Making a random program by the grammar.

use super::dice::Dice;
use super::grammar::{Grammar, Language, Part};
use super::program::{
    CLASSES, Class, FURTHER, HEADER, Item, Kind, Linkage, Node, Place, Program, class_of,
};

/// Rules below each other from which on only the shortest ways are taken.
const DEEP: usize = 7;

/// Makes nodes for one item.
pub(super) struct Maker<'a> {
    pub(super) grammar: &'a Grammar,
    pub(super) program: &'a mut Program,
    pub(super) dice: &'a mut Dice,
    /// The source that the item is in.
    pub(super) unit: usize,
}

/// A program of two sources, or three.
pub(super) fn program(grammar: &Grammar, dice: &mut Dice) -> Program {
    let count = dice.between(1, 3);
    let units = (0..count).map(|_| dice.chance(55)).collect();
    let mut program = Program::new(units);
    // Names first: everything may name everything.
    for class in CLASSES.iter().chain(&FURTHER) {
        for unit in places(&program, class) {
            for _ in 0..dice.between(class.count.0, class.count.1) {
                declare(&mut program, class, unit, dice);
            }
        }
    }
    let ids: Vec<u32> = program.items.iter().map(|it| it.id).collect();
    for id in ids {
        define(grammar, &mut program, id, dice);
    }
    program
}

/// The sources that items of a class are in.
fn places(program: &Program, class: &Class) -> Vec<usize> {
    match class.place {
        Place::Header | Place::HeaderCpp => vec![HEADER],
        Place::First => vec![0],
        Place::Any => (0..program.units.len()).collect(),
        Place::Cpp => (0..program.units.len())
            .filter(|unit| program.is_cpp(*unit))
            .collect(),
    }
}

/// Adds an item of which nothing but its name is known.
pub(super) fn declare(
    program: &mut Program,
    class: &'static Class,
    unit: usize,
    dice: &mut Dice,
) -> u32 {
    let id = program.fresh();
    let linkage = match (class.declaration, unit) {
        (_, HEADER) => Linkage::Global,
        (None, _) if class.name != "class.K" => Linkage::Static,
        _ if dice.chance(45) => Linkage::Static,
        _ if class.is_function() && dice.chance(50) => Linkage::Exported,
        _ => Linkage::Global,
    };
    let attribute = match dice.below(10) {
        0..5 if class.is_function() => "__declspec(noinline) ",
        5 if class.is_function() => "__attribute__((cold)) ",
        _ => "",
    };
    let name = name(program, class, linkage, unit, dice);
    program.items.push(Item {
        id,
        class,
        name,
        unit,
        linkage,
        mangled: unit != HEADER && program.is_cpp(unit) && dice.chance(50),
        constant: class.may_be_constant() && dice.chance(70),
        attribute,
        node: Node {
            id: 0,
            kind: Kind::Text(String::new()),
        },
    });
    id
}

/// A name; some static items of several sources share theirs.
fn name(
    program: &Program,
    class: &Class,
    linkage: Linkage,
    unit: usize,
    dice: &mut Dice,
) -> String {
    const FIRST: [&str; 12] = [
        "read", "fold", "pack", "scan", "merge", "trim", "weigh", "shift", "probe", "sift",
        "route", "stamp",
    ];
    const SECOND: [&str; 12] = [
        "row", "name", "index", "frame", "limit", "token", "bucket", "page", "edge", "rate",
        "ticket", "lane",
    ];
    if class.name == "type.rec" {
        return "rec".to_owned();
    }
    let is_elsewhere = |it: &&Item| {
        let same = it.class.name == class.name && it.linkage == linkage;
        let taken = program
            .items
            .iter()
            .any(|other| other.unit == unit && other.name == it.name);
        same && it.unit != unit && !taken
    };
    let elsewhere: Vec<&Item> = program.items.iter().filter(is_elsewhere).collect();
    if linkage == Linkage::Static
        && dice.chance(20)
        && let Some(other) = dice.pick(&elsewhere)
    {
        return other.name.clone();
    }
    loop {
        let words = (dice.pick(&FIRST), dice.pick(&SECOND));
        let (first, second) = (words.0.unwrap_or(&""), words.1.unwrap_or(&""));
        let name = match dice.below(3) {
            0 => format!("{first}_{second}"),
            1 => format!("{first}_{second}_{}", dice.below(20)),
            _ => format!("{second}_{first}"),
        };
        if program.items.iter().all(|it| it.name != name) {
            return name;
        }
    }
}

/// Writes the definition of a declared item.
pub(super) fn define(grammar: &Grammar, program: &mut Program, id: u32, dice: &mut Dice) {
    let Some(item) = program.item(id) else { return };
    let (class, unit) = (item.class, item.unit);
    // Some are what another one is.
    let alike = |it: &&Item| {
        let same = it.id != id && it.class.name == class.name && it.unit == unit;
        same && it.node.id != 0
    };
    let others: Vec<&Item> = program.items.iter().filter(alike).collect();
    let copied = dice.chance(12).then(|| dice.pick(&others)).flatten();
    let copied = copied.map(|it| it.node.clone());
    let mut maker = Maker {
        grammar,
        program,
        dice,
        unit,
    };
    let node = match copied {
        Some(mut node) => {
            maker.renumber(&mut node);
            Some(node)
        }
        None => (0..20).find_map(|_| maker.make(&format!("item.{}", class.name), 0)),
    };
    let place = program.items.iter_mut().find(|it| it.id == id);
    if let (Some(item), Some(node)) = (place, node) {
        item.node = node;
    }
}

impl Maker<'_> {
    /// Something by its name; nothing where it needs an item that there is none of.
    pub(super) fn make(&mut self, name: &str, depth: usize) -> Option<Node> {
        let kind = match name {
            "int" => Kind::Int(self.number()),
            "float" | "single" => {
                let quarters = i64::try_from(self.dice.below(40)).ok()?;
                Kind::Float(quarters, name == "single")
            }
            "str" => Kind::Str(self.string()),
            "again" => Kind::Again,
            "own" => Kind::Own,
            "index" => Kind::Index,
            "fresh" => Kind::Fresh(self.program.fresh()),
            _ if name.contains('.') && !name.starts_with("item.") => {
                let class = class_of(name)?;
                let known = self.program.seen(self.unit, class);
                Kind::Name(class, *self.dice.pick(&known)?)
            }
            _ => return (0..6).find_map(|_| self.rule(name, depth)),
        };
        Some(self.node(kind))
    }

    fn rule(&mut self, name: &str, depth: usize) -> Option<Node> {
        let cpp = self.program.is_cpp(self.unit);
        let language = if cpp { Language::Cpp } else { Language::C };
        let way = self
            .grammar
            .choose(name, language, depth > DEEP, self.dice)?;
        let mut parts = Vec::new();
        for part in &way.parts {
            let node = match part {
                Part::Text(text) => self.node(Kind::Text(text.clone())),
                Part::One(name) => self.make(name, depth + 1)?,
                Part::Many(name) => {
                    let count = self.count(name, depth);
                    let several = (0..count).filter_map(|_| self.make(name, depth + 1));
                    let several = several.collect();
                    self.node(Kind::List(name.clone(), several))
                }
            };
            parts.push(node);
        }
        Some(self.node(Kind::Rule(name.to_owned(), parts)))
    }

    /// How many of something there are in a list.
    fn count(&mut self, name: &str, depth: usize) -> usize {
        match name {
            "dense" | "lookup" | "naming" => self.dice.between(4, 9),
            "sparse" | "making" => self.dice.between(3, 6),
            "handler" => self.dice.between(1, 3),
            "stmt" if depth > 4 => self.dice.below(2),
            "stmt" if depth > 2 => self.dice.below(3),
            "stmt" => self.dice.between(0, 4),
            _ => self.dice.below(4),
        }
    }

    /// Small numbers more often than others, so that some are equal.
    pub(super) fn number(&mut self) -> i64 {
        const SMALL: [i64; 8] = [0, 1, 1, 2, 3, 4, 7, -1];
        let below = |most: usize, dice: &mut Dice| i64::try_from(dice.below(most)).unwrap_or(0);
        match self.dice.below(10) {
            0..5 => *self.dice.pick(&SMALL).unwrap_or(&0),
            5..7 => below(200, self.dice),
            7 => 0x1000 * below(64, self.dice),
            8 => below(0x8000, self.dice) - 0x4000,
            _ => below(0x7fff_ffff, self.dice),
        }
    }

    /// Some are the end of others.
    pub(super) fn string(&mut self) -> String {
        const WORDS: [&str; 12] = [
            "bad token",
            "token",
            "out of range",
            "range",
            "header",
            "bad header",
            "name",
            "unknown name",
            "done",
            "not done",
            "abc",
            "%s: %d",
        ];
        let word = self.dice.pick(&WORDS).unwrap_or(&"word");
        match self.dice.below(4) {
            0 => format!("error: {word}"),
            1 => format!("{word} {}", self.dice.below(10)),
            _ => (*word).to_owned(),
        }
    }

    pub(super) fn node(&mut self, kind: Kind) -> Node {
        let id = self.program.fresh();
        Node { id, kind }
    }

    /// Makes a copy another thing than what it was copied from.
    pub(super) fn renumber(&mut self, node: &mut Node) {
        let program = &mut *self.program;
        node.walk_mut(&mut |it| {
            it.id = program.fresh();
            if let Kind::Fresh(number) = &mut it.kind {
                *number = program.fresh();
            }
        });
    }
}
