//! A random program as a value that can be edited: items in their sources, each a tree of what the
//! grammar made of it.

/// One side of a pair.
#[derive(Clone, Debug, Default)]
pub(super) struct Program {
    /// In the order in which they are written, where nothing else decides.
    pub(super) items: Vec<Item>,
    /// Whether each source is C++.
    pub(super) units: Vec<bool>,
    /// The next number of an item, a node, or what must be new.
    next: u32,
}

/// What all sources see stands in the header.
pub(super) const HEADER: usize = usize::MAX;

/// A function, a variable or a type.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) id: u32,
    pub(super) class: &'static Class,
    pub(super) name: String,
    /// The source it is in, or [`HEADER`].
    pub(super) unit: usize,
    pub(super) linkage: Linkage,
    /// Named as C++ names things, so that C cannot use it.
    pub(super) mangled: bool,
    pub(super) constant: bool,
    pub(super) attribute: &'static str,
    pub(super) node: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linkage {
    Static,
    Global,
    Exported,
}

/// A kind of item.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) name: &'static str,
    /// Items of a lower rank stand in front.
    pub(super) rank: usize,
    pub(super) place: Place,
    /// How others are told of it, around its name; nothing where its definition is all.
    pub(super) declaration: Option<(&'static str, &'static str)>,
    /// How many of them a source has.
    pub(super) count: (usize, usize),
}

/// Where items of a class can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Any,
    /// In the first source, and it stays there: code holds the offsets of thread-local variables as
    /// numbers, and a function that another layout gives another number has changed.
    First,
    /// In sources of C++.
    Cpp,
    Header,
    /// In what C++ sees of the header.
    HeaderCpp,
}

impl Class {
    pub(super) fn is_function(&self) -> bool {
        self.name.starts_with("fn.")
    }

    /// Whether items can be read-only or not.
    pub(super) fn may_be_constant(&self) -> bool {
        ["tab.short", "tab.char", "tab.row", "tab.fn"].contains(&self.name)
    }
}

const fn class(
    name: &'static str,
    rank: usize,
    place: Place,
    declaration: Option<(&'static str, &'static str)>,
    count: (usize, usize),
) -> Class {
    Class {
        name,
        rank,
        place,
        declaration,
        count,
    }
}

/// Every kind of item. Calls and initial values lead from higher ranks to lower ones, but for
/// functions, which are all declared in front.
pub(super) static CLASSES: [Class; 25] = {
    use Place::{Any, Cpp, First, Header, HeaderCpp};
    [
        class("type.rec", 0, Header, None, (1, 1)),
        class("any.int", 1, Header, None, (1, 2)),
        class(
            "tmpl.II",
            2,
            HeaderCpp,
            Some(("template <class T> T ", "(T a, T b)")),
            (1, 3),
        ),
        class("var.int", 3, Any, Some(("int ", "")), (2, 4)),
        class("var.ll", 3, Any, Some(("long long ", "")), (1, 2)),
        class("var.double", 3, Any, Some(("double ", "")), (1, 2)),
        class("var.ptr", 3, Any, Some(("const char *", "")), (1, 1)),
        class("var.tls", 3, First, None, (1, 2)),
        class("var.rec", 3, Any, Some(("struct rec ", "")), (1, 2)),
        class("tab.int", 3, Any, Some(("const int ", "[]")), (2, 4)),
        class("tab.int.w", 3, Any, Some(("int ", "[]")), (1, 2)),
        class("tab.short", 3, Any, Some(("short ", "[]")), (1, 2)),
        class("tab.char", 3, Any, Some(("char ", "[]")), (1, 2)),
        class(
            "tab.str",
            3,
            Any,
            Some(("const char *const ", "[]")),
            (1, 2),
        ),
        class("tab.fn", 3, Any, Some(("step ", "[]")), (1, 2)),
        class("tab.ptr", 4, Any, Some(("const int *const ", "[]")), (1, 2)),
        class(
            "tab.tab",
            5,
            Any,
            Some(("const int *const *const ", "[]")),
            (1, 1),
        ),
        class("tab.row", 5, Any, Some(("struct row ", "[]")), (1, 2)),
        class("class.K", 6, Cpp, None, (1, 3)),
        class("fn.II", 7, Any, Some(("int ", "(int a, int b)")), (4, 8)),
        class(
            "fn.D",
            7,
            Any,
            Some(("double ", "(double d, int a)")),
            (1, 2),
        ),
        class("fn.S", 7, Any, Some(("const char *", "(int a)")), (1, 2)),
        class(
            "fn.R",
            7,
            Any,
            Some(("int ", "(struct rec *r, int a)")),
            (1, 2),
        ),
        class(
            "fn.W",
            7,
            Any,
            Some(("long long ", "(long long w, int a)")),
            (1, 2),
        ),
        class("fn.V", 7, Any, Some(("int ", "(int a, ...)")), (1, 1)),
    ]
};

/// What only some sources have: the same, in a list of its own to keep the other within a screen.
pub(super) static FURTHER: [Class; 3] = {
    use Place::{Any, Cpp};
    [
        class("fn.X", 7, Any, Some(("void ", "(int a)")), (1, 2)),
        class("fn.G", 7, Any, Some(("struct big ", "(int a)")), (1, 1)),
        class("fn.M", 7, Cpp, Some(("Root *", "(int a)")), (1, 2)),
    ]
};

/// A piece of an item.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The same on both sides of a pair for what was not edited.
    pub(super) id: u32,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Text(String),
    /// What a rule made.
    Rule(String, Vec<Node>),
    /// Several of what a rule makes.
    List(String, Vec<Node>),
    Int(i64),
    /// In quarters.
    Float(i64, bool),
    Str(String),
    /// An item of that class.
    Name(&'static Class, u32),
    Again,
    Own,
    Index,
    Fresh(u32),
}

impl Node {
    /// All nodes, from here on down.
    pub(super) fn walk<'n>(&'n self, visit: &mut impl FnMut(&'n Node)) {
        visit(self);
        if let Kind::Rule(_, parts) | Kind::List(_, parts) = &self.kind {
            for part in parts {
                part.walk(visit);
            }
        }
    }

    /// The same, and they can be changed.
    pub(super) fn walk_mut(&mut self, visit: &mut impl FnMut(&mut Node)) {
        visit(self);
        if let Kind::Rule(_, parts) | Kind::List(_, parts) = &mut self.kind {
            for part in parts {
                part.walk_mut(visit);
            }
        }
    }
}

impl Program {
    /// A program without items, in sources of which some are C++.
    pub(super) fn new(units: Vec<bool>) -> Program {
        Program {
            items: Vec::new(),
            units,
            next: 1,
        }
    }

    pub(super) fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    pub(super) fn item(&self, id: u32) -> Option<&Item> {
        self.items.iter().find(|it| it.id == id)
    }

    pub(super) fn is_cpp(&self, unit: usize) -> bool {
        self.units.get(unit).is_none_or(|cpp| *cpp)
    }

    /// Whether code in a source can name the item.
    pub(super) fn sees(&self, unit: usize, item: &Item) -> bool {
        let cpp = self.is_cpp(unit);
        let lone = item.class.declaration.is_none() || item.linkage == Linkage::Static;
        if item.unit == HEADER {
            item.class.place == Place::Header || cpp
        } else if item.unit == unit {
            true
        } else {
            !lone && (!item.mangled || cpp)
        }
    }

    /// The items of a class that code in a source can name.
    pub(super) fn seen(&self, unit: usize, class: &Class) -> Vec<u32> {
        let fits = |it: &&Item| it.class.name == class.name && self.sees(unit, it);
        self.items.iter().filter(fits).map(|it| it.id).collect()
    }

    /// Whether anything but the item itself names it.
    pub(super) fn is_named(&self, id: u32) -> bool {
        let mut named = false;
        for item in self.items.iter().filter(|it| it.id != id) {
            item.node.walk(&mut |node| {
                named |= matches!(node.kind, Kind::Name(_, other) if other == id);
            });
        }
        named
    }
}

/// The class of a name.
pub(super) fn class_of(name: &str) -> Option<&'static Class> {
    CLASSES.iter().chain(&FURTHER).find(|it| it.name == name)
}
