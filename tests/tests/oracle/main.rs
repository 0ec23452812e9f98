//! The oracle on objects made by hand: each rule that it follows, and the near miss beside it.

use hpbuild_tests::oracle::{Comparison, ObjectFile, Program, compare};
use object::{SectionKind, SymbolKind, SymbolScope, pe};

mod maker;

use maker::Maker;

fn compared(base: Maker, fixed: Maker) -> Comparison {
    let [base, fixed] = [base, fixed].map(|it| {
        let object = ObjectFile::read("test.obj", &it.bytes()).expect("an object");
        Program::new(vec![object]).expect("one function a section")
    });
    compare(&base, &fixed)
}

fn changed(comparison: &Comparison) -> Vec<&str> {
    comparison
        .changed
        .iter()
        .map(|it| it.function.name.as_str())
        .collect()
}

/// One function that reads one constant.
fn reader(constant: &str, bytes: &[u8]) -> Maker {
    let mut it = Maker::new();
    let code = it.function("reader");
    let (_, symbol) = it.constant(constant, bytes);
    it.lea(code, symbol);
    it
}

#[test]
fn a_constant_counts_by_what_it_holds() {
    assert!(
        changed(&compared(
            reader(".str.1", b"yes\0"),
            reader(".str.7", b"yes\0")
        ))
        .is_empty()
    );
    assert_eq!(
        changed(&compared(
            reader(".str.1", b"yes\0"),
            reader(".str.1", b"not\0")
        )),
        ["reader"]
    );
}

#[test]
fn the_name_of_a_constant_counts_where_a_person_gave_it() {
    assert_eq!(
        changed(&compared(
            reader("limits", b"1234"),
            reader("bounds", b"1234")
        )),
        ["reader"]
    );
}

#[test]
fn a_zero_more_in_a_table_of_its_own_is_a_change() {
    assert_eq!(
        changed(&compared(
            reader("limits", &[1, 0]),
            reader("limits", &[1, 0, 0])
        )),
        ["reader"]
    );
}

#[test]
fn order_of_sections_means_nothing() {
    let build = |swapped: bool| {
        let mut it = Maker::new();
        let names = if swapped {
            ["second", "first"]
        } else {
            ["first", "second"]
        };
        let codes = names.map(|name| it.function(name));
        let (_, symbol) = it.constant(".str", b"text\0");
        for code in codes {
            it.lea(code, symbol);
        }
        it
    };
    let comparison = compared(build(false), build(true));
    assert_eq!(comparison.same.len(), 2);
    assert!(comparison.changed.is_empty());
}

#[test]
fn another_callee_is_a_change_of_the_caller_alone() {
    let build = |callee: &str| {
        let mut it = Maker::new();
        let caller = it.function("caller");
        for name in ["one", "other"] {
            let code = it.function(name);
            let (_, symbol) = it.constant(&format!(".{name}"), b"same");
            it.lea(code, symbol);
        }
        let callee = it.0.symbol_id(callee.as_bytes()).expect("defined above");
        it.lea(caller, callee);
        it
    };
    assert_eq!(changed(&compared(build("one"), build("other"))), ["caller"]);
    assert!(changed(&compared(build("one"), build("one"))).is_empty());
}

#[test]
fn an_offset_into_a_table_counts() {
    let build = |offset: i64| {
        let mut it = Maker::new();
        let code = it.function("reader");
        let (_, symbol) = it.constant("table", &[7; 32]);
        it.relocate(code, 3, symbol, pe::IMAGE_REL_AMD64_REL32.0, offset - 4);
        it
    };
    assert_eq!(changed(&compared(build(8), build(16))), ["reader"]);
}

#[test]
fn tables_are_followed_through_tables() {
    let build = |far: &[u8]| {
        let mut it = Maker::new();
        let code = it.function("reader");
        let (near, near_symbol) = it.constant("near", &[0; 8]);
        let (_, far_symbol) = it.constant("far", far);
        it.pointer(near, 0, far_symbol);
        it.lea(code, near_symbol);
        it
    };
    assert_eq!(changed(&compared(build(b"abc"), build(b"abd"))), ["reader"]);
    assert!(changed(&compared(build(b"abc"), build(b"abc"))).is_empty());
}

#[test]
fn tables_that_point_at_each_other_come_to_an_end() {
    let build = |second: &[u8; 9]| {
        let mut it = Maker::new();
        let code = it.function("reader");
        let (one, one_symbol) = it.constant("one", &[0; 8]);
        let (other, other_symbol) = it.constant("other", second);
        it.pointer(one, 0, other_symbol);
        it.pointer(other, 0, one_symbol);
        it.lea(code, one_symbol);
        it
    };
    let plain = [0; 9];
    let mut marked = plain;
    marked[8] = 1;
    assert!(changed(&compared(build(&plain), build(&plain))).is_empty());
    assert_eq!(
        changed(&compared(build(&plain), build(&marked))),
        ["reader"]
    );
}

#[test]
fn a_permuted_jump_table_is_a_change() {
    let build = |order: [i64; 2]| {
        let mut it = Maker::new();
        let code = it.function("switch");
        let label = it.0.symbol_id(b"switch").expect("defined above");
        let (table, table_symbol) = it.constant(".jumps", &[0; 8]);
        for (index, target) in order.into_iter().enumerate() {
            let typ = pe::IMAGE_REL_AMD64_REL32.0;
            it.relocate(table, 4 * index as u64, label, typ, target);
        }
        it.lea(code, table_symbol);
        it
    };
    assert_eq!(changed(&compared(build([3, 7]), build([7, 3]))), ["switch"]);
    assert!(changed(&compared(build([3, 7]), build([3, 7]))).is_empty());
}

#[test]
fn an_initial_value_is_data_and_no_change_of_code() {
    let build = |value: u8| {
        let mut it = Maker::new();
        let code = it.function("reader");
        let id = it.section(".data$level", SectionKind::Data, &[value]);
        let level = it.symbol("level", id, SymbolKind::Data);
        it.lea(code, level);
        it
    };
    let comparison = compared(build(1), build(2));
    assert!(comparison.changed.is_empty());
    assert_eq!(comparison.data.len(), 1);
    assert_eq!(comparison.data[0].name, "level");
}

#[test]
fn functions_come_and_go() {
    let build = |name: &str| {
        let mut it = Maker::new();
        it.function("stays");
        let code = it.function(name);
        let (_, symbol) = it.constant(".str", name.as_bytes());
        it.lea(code, symbol);
        it
    };
    let comparison = compared(build("goes"), build("comes"));
    assert_eq!(comparison.added[0].name, "comes");
    assert_eq!(comparison.removed[0].name, "goes");
    assert_eq!(comparison.same.len(), 1);
}

/// Two objects, and the static function `helper` in the one that is named.
fn with_static(home: &str, bytes: &[u8]) -> Program {
    let objects = ["one.obj", "other.obj"].map(|name| {
        let mut it = Maker::new();
        it.function(name.trim_end_matches(".obj"));
        if name == home {
            let code = it.section(".text$helper", SectionKind::Text, bytes);
            let symbol = it.symbol("helper", code, SymbolKind::Text);
            it.0.symbol_mut(symbol).scope = SymbolScope::Compilation;
        }
        ObjectFile::read(name, &it.bytes()).expect("an object")
    });
    Program::new(objects.into()).expect("one function a section")
}

#[test]
fn a_static_function_moves_to_another_object() {
    let moved = compare(
        &with_static("one.obj", b"\xc3"),
        &with_static("other.obj", b"\xc3"),
    );
    assert_eq!((moved.same.len(), moved.added.len()), (3, 0));
    let mended = compare(
        &with_static("one.obj", b"\xc3"),
        &with_static("other.obj", b"\x90\xc3"),
    );
    assert_eq!(changed(&mended), ["helper"]);
}

#[test]
fn a_function_with_another_name_is_recognised_by_what_it_means() {
    let build = |name: &str, text: &[u8]| {
        let mut it = Maker::new();
        let caller = it.function("caller");
        let callee = it.function(name);
        let (_, symbol) = it.constant(".str", text);
        it.lea(callee, symbol);
        let callee = it.0.symbol_id(name.as_bytes()).expect("defined above");
        it.lea(caller, callee);
        it
    };
    let comparison = compared(build("error", b"no\0"), build("failure", b"no\0"));
    assert_eq!(comparison.renamed.len(), 1);
    assert!(comparison.changed.is_empty() && comparison.added.is_empty());
    let comparison = compared(build("error", b"no\0"), build("failure", b"on\0"));
    assert!(comparison.renamed.is_empty());
    assert_eq!(changed(&comparison), ["caller"]);
}

#[test]
fn a_narrow_read_gets_a_part_of_a_string() {
    // movsx eax, byte [rip + ...]; ret, and the same with lea.
    let build = |opcode: [u8; 3], text: &[u8]| {
        let mut it = Maker::new();
        let mut code = opcode.to_vec();
        code.extend([0, 0, 0, 0, 0xc3]);
        let id = it.section(".text$reader", SectionKind::Text, &code);
        it.symbol("reader", id, SymbolKind::Text);
        let (_, symbol) = it.constant(".str", text);
        it.lea(id, symbol);
        it
    };
    let both = |opcode| {
        let comparison = compared(build(opcode, b"1.2.11\0"), build(opcode, b"1.2.13\0"));
        comparison.changed.len()
    };
    assert_eq!(both([0x0f, 0xbe, 0x05]), 0);
    assert_eq!(both([0x48, 0x8d, 0x05]), 1);
}

#[test]
fn what_is_caught_is_part_of_the_function() {
    let build = |caught: &str| {
        let mut it = Maker::new();
        it.function("thrower");
        let function = it.0.symbol_id(b"thrower").expect("defined above");
        let symbols = ["one", "other"].map(|name| it.constant(name, name.as_bytes()).1);
        let caught = symbols[usize::from(caught == "other")];
        let kind = SectionKind::ReadOnlyData;
        let data = it.section(".xdata$thrower", kind, &[1, 0, 0, 0, 0, 0, 0, 0]);
        let table = it.symbol(".table", data, SymbolKind::Data);
        let directory = it.section(".pdata$thrower", kind, &[0; 12]);
        let typ = pe::IMAGE_REL_AMD64_ADDR32NB.0;
        it.relocate(data, 4, caught, typ, 0);
        for (offset, symbol) in [(0, function), (4, function), (8, table)] {
            it.relocate(directory, offset, symbol, typ, 0);
        }
        it
    };
    assert!(changed(&compared(build("one"), build("one"))).is_empty());
    assert_eq!(
        changed(&compared(build("one"), build("other"))),
        ["thrower"]
    );
}

#[test]
fn a_funclet_is_a_part_of_its_function() {
    let build = |name: &str, end: u8| {
        let mut it = Maker::new();
        let code = it.section(".text$thrower", SectionKind::Text, &[0xc3, 0x90, end]);
        it.symbol("thrower", code, SymbolKind::Text);
        let part = it.symbol(name, code, SymbolKind::Text);
        it.0.symbol_mut(part).value = 1;
        ObjectFile::read("test.obj", &it.bytes()).expect("an object")
    };
    let program = |end| Program::new(vec![build("?dtor$1@?0?thrower@4HA", end)]).expect("one");
    let comparison = compare(&program(0xc3), &program(0xcc));
    assert_eq!(changed(&comparison), ["thrower"]);
    assert!(Program::new(vec![build("another", 0xc3)]).is_err());
}

/// Instances of one generic function, as the older names of rustc have them: by the hash alone.
fn instances(bodies: &[(&str, &[u8])]) -> Maker {
    let mut it = Maker::new();
    for (hash, text) in bodies {
        let code = it.function(&format!("_ZN4core3fmt5write17h{hash:0>16}E"));
        let (_, symbol) = it.constant(&format!(".text{hash}"), text);
        it.lea(code, symbol);
    }
    it
}

#[test]
fn instances_of_one_name_are_told_apart_by_what_they_mean() {
    let base = || instances(&[("a1", b"one"), ("a2", b"two"), ("a3", b"three")]);
    let moved = instances(&[("b9", b"three"), ("b8", b"one"), ("b7", b"two")]);
    let comparison = compared(base(), moved);
    assert_eq!((comparison.same.len(), comparison.changed.len()), (3, 0));
    // What is left alone with the name is the one that changed.
    let mended = instances(&[("b9", b"three"), ("b8", b"one"), ("b7", b"TWO")]);
    let comparison = compared(base(), mended);
    assert_eq!((comparison.same.len(), comparison.changed.len()), (2, 1));
    assert!(comparison.added.is_empty() && comparison.removed.is_empty());
    let further = instances(&[
        ("b9", b"three"),
        ("b8", b"one"),
        ("b7", b"two"),
        ("b6", b"four"),
    ]);
    let comparison = compared(base(), further);
    assert_eq!((comparison.same.len(), comparison.added.len()), (3, 1));
}

#[test]
fn instances_that_nothing_tells_apart_are_ambiguous() {
    let base = instances(&[("a1", b"one"), ("a2", b"two"), ("a3", b"three")]);
    let fixed = instances(&[("b9", b"ONE"), ("b8", b"TWO"), ("b7", b"three")]);
    let comparison = compared(base, fixed);
    assert_eq!((comparison.same.len(), comparison.changed.len()), (1, 0));
    assert_eq!(comparison.ambiguous.0.len(), 2);
    assert_eq!(comparison.ambiguous.1.len(), 2);
    assert!(comparison.added.is_empty() && comparison.removed.is_empty());
}

#[test]
fn what_is_no_object_is_refused() {
    let bytes = reader("limits", b"1234").bytes();
    assert!(ObjectFile::read("cut.obj", &bytes[..30]).is_err());
    assert!(ObjectFile::read("text.obj", b"int main(void) {}").is_err());
}
