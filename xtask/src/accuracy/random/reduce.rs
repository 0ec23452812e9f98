//! Taking out of a pair what its disagreement does not need, so that a person can read it.

use super::program::{Kind, Node, Program};

/// Something that may not be needed.
#[derive(Clone, Copy, Debug)]
enum Part {
    Item(u32),
    /// An element of a list.
    Element(u32),
    /// What a rule made, in place of which something plain may do.
    Plain(u32, &'static str),
}

/// Takes parts out of both sides as long as `holds` finds that the disagreement stays.
///
/// # Errors
/// Those of `holds`.
pub(super) fn reduce<E>(
    base: &mut Program,
    fixed: &mut Program,
    mut holds: impl FnMut(&Program, &Program) -> Result<Option<bool>, E>,
) -> Result<(), E> {
    for kind in [elements, items, elements, items, plain, items] {
        let mut parts = kind(base, fixed);
        let mut size = parts.len().div_ceil(2);
        while size > 0 && !parts.is_empty() {
            let mut needed = Vec::new();
            for chunk in parts.chunks(size) {
                let (mut one, mut other) = (base.clone(), fixed.clone());
                for part in chunk {
                    strike(&mut one, *part);
                    strike(&mut other, *part);
                }
                match holds(&one, &other)? {
                    Some(true) => (*base, *fixed) = (one, other),
                    Some(false) => needed.extend_from_slice(chunk),
                    // No time is left.
                    None => return Ok(()),
                }
            }
            parts = needed;
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }
    Ok(())
}

/// Items that nothing names.
fn items(base: &Program, fixed: &Program) -> Vec<Part> {
    let mut ids: Vec<u32> = base
        .items
        .iter()
        .chain(&fixed.items)
        .map(|it| it.id)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids.retain(|id| !base.is_named(*id) && !fixed.is_named(*id));
    ids.into_iter().map(Part::Item).collect()
}

fn elements(base: &Program, fixed: &Program) -> Vec<Part> {
    nodes(base, fixed, |node, found| {
        if let Kind::List(_, elements) = &node.kind {
            found.extend(elements.iter().map(|it| Part::Element(it.id)));
        }
    })
}

fn plain(base: &Program, fixed: &Program) -> Vec<Part> {
    nodes(base, fixed, |node, found| {
        let Kind::Rule(name, _) = &node.kind else {
            return;
        };
        let plain = match name.as_str() {
            "expr" | "cond" => "x",
            "fexpr" => "1.5",
            "wexpr" => "5LL",
            "text" => "\"plain\"",
            "return" => "return 0;",
            _ => return,
        };
        found.push(Part::Plain(node.id, plain));
    })
}

fn nodes(base: &Program, fixed: &Program, pick: impl Fn(&Node, &mut Vec<Part>)) -> Vec<Part> {
    let mut found = Vec::new();
    for item in &base.items {
        item.node.walk(&mut |node| pick(node, &mut found));
    }
    // What an edit brought is a reason to look, and stays.
    let _ = fixed;
    found
}

fn strike(program: &mut Program, part: Part) {
    if let Part::Item(id) = part {
        program.items.retain(|it| it.id != id);
        return;
    }
    for item in &mut program.items {
        item.node
            .walk_mut(&mut |node| match (&mut node.kind, part) {
                (Kind::List(_, elements), Part::Element(id)) => elements.retain(|it| it.id != id),
                (Kind::Rule(..), Part::Plain(id, text)) if id == node.id => {
                    node.kind = Kind::Text(text.to_owned());
                }
                _ => {}
            });
    }
}
