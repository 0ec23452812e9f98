//! Random edits of a program, as a fix may bring them, without a thought of what comes of it.

use super::dice::Dice;
use super::generate::{Maker, declare, define};
use super::grammar::Grammar;
use super::program::{CLASSES, FURTHER, HEADER, Item, Kind, Linkage, Node, Place, Program};

/// Gives a function another name and says so, in one of many cases. That is an edit of its own: what
/// has another name and means something else is another function to the oracle.
pub(super) fn rename_once(program: &mut Program, dice: &mut Dice) -> Option<String> {
    if dice.chance(8) {
        rename(program, dice)
    } else {
        None
    }
}

/// Edits the program once and says how; nothing where the edit that was thrown does not fit.
pub(super) fn edit(grammar: &Grammar, program: &mut Program, dice: &mut Dice) -> Option<String> {
    match dice.below(20) {
        0 | 1 => swap_items(program, dice),
        2 => remove(program, dice),
        3 => add(grammar, program, dice),
        4 => relink(program, dice),
        5 => move_item(program, dice),
        _ => edit_node(grammar, program, dice),
    }
}

fn any_item<'p>(program: &'p mut Program, dice: &mut Dice) -> Option<&'p mut Item> {
    let at = dice.below(program.items.len());
    program.items.get_mut(at)
}

/// Two items of one kind and one source, in the other order.
fn swap_items(program: &mut Program, dice: &mut Dice) -> Option<String> {
    let first = dice.below(program.items.len());
    let item = program.items.get(first)?;
    if item.class.place == Place::First {
        return None;
    }
    let alike = |it: &Item| it.class.name == item.class.name && it.unit == item.unit;
    let behind = program.items.iter().enumerate().skip(first + 1);
    let second = behind
        .filter(|(_, it)| alike(it))
        .map(|(at, _)| at)
        .next()?;
    let says = format!("order of {} and {}", item.name, program.items[second].name);
    program.items.swap(first, second);
    Some(says)
}

fn rename(program: &mut Program, dice: &mut Dice) -> Option<String> {
    let number = dice.below(100);
    let item = any_item(program, dice)?;
    // To the oracle a table is another one when it has another name, and so is a static variable
    // when its function has; what a class has of its own is not recognised by the differ.
    let mut has_own = !item.class.is_function();
    item.node.walk(&mut |node| {
        has_own |= matches!(&node.kind, Kind::Text(text) if text.contains("static "));
    });
    if has_own {
        return None;
    }
    let name = format!("{}_{number}x", item.name);
    let says = format!("{} is now {name}", item.name);
    item.name = name;
    Some(says)
}

/// Takes an item out; whoever used it uses another one.
fn remove(program: &mut Program, dice: &mut Dice) -> Option<String> {
    let at = dice.below(program.items.len());
    let gone = program.items.get(at)?.clone();
    if gone.unit == HEADER || gone.class.place == Place::First {
        return None;
    }
    program.items.remove(at);
    let known = program.clone();
    let mut left = true;
    for item in &mut program.items {
        let unit = item.unit;
        item.node.walk_mut(&mut |node| {
            if let Kind::Name(class, id) = &mut node.kind
                && *id == gone.id
            {
                match dice.pick(&known.seen(unit, class)) {
                    Some(other) => *id = *other,
                    None => left = false,
                }
            }
        });
    }
    left.then(|| format!("{} removed", gone.name))
}

fn add(grammar: &Grammar, program: &mut Program, dice: &mut Dice) -> Option<String> {
    let fits = |place| !matches!(place, Place::Header | Place::First);
    let all = CLASSES.iter().chain(&FURTHER);
    let classes: Vec<_> = all.filter(|it| fits(it.place)).collect();
    let class = *dice.pick(&classes)?;
    let unit = match class.place {
        Place::HeaderCpp => HEADER,
        _ => dice.below(program.units.len()),
    };
    if class.place == Place::Cpp && !program.is_cpp(unit) {
        return None;
    }
    let id = declare(program, class, unit, dice);
    define(grammar, program, id, dice);
    // Not always the last.
    let item = program.items.pop()?;
    let says = format!("{} added", item.name);
    let at = dice.below(program.items.len() + 1);
    program.items.insert(at, item);
    // Somebody uses it.
    let mut users: Vec<&mut u32> = Vec::new();
    let known = program.clone();
    for item in program.items.iter_mut().filter(|it| it.id != id) {
        let unit = item.unit;
        let sees = known.seen(unit, class).contains(&id);
        if sees {
            collect_names(&mut item.node, class.name, &mut users);
        }
    }
    let at = dice.below(users.len());
    if let Some(user) = users.into_iter().nth(at) {
        *user = id;
    }
    Some(says)
}

fn collect_names<'n>(node: &'n mut Node, class: &str, found: &mut Vec<&'n mut u32>) {
    match &mut node.kind {
        Kind::Name(named, id) if named.name == class => found.push(id),
        Kind::Rule(_, parts) | Kind::List(_, parts) => {
            for part in parts {
                collect_names(part, class, found);
            }
        }
        _ => {}
    }
}

/// Linkage, or what may be read-only, or whether it is inlined.
fn relink(program: &mut Program, dice: &mut Dice) -> Option<String> {
    let what = dice.below(3);
    let to = [Linkage::Static, Linkage::Global, Linkage::Exported];
    let to = *dice.pick(&to)?;
    let units = program.units.clone();
    let item = any_item(program, dice)?;
    let name = item.name.clone();
    // C++ gives a variable another name with it, and to the oracle it is another one then.
    let cpp = units.get(item.unit).is_none_or(|cpp| *cpp);
    let keeps_name = item.class.is_function() || !cpp;
    match what {
        0 if item.class.may_be_constant() => {
            item.constant = !item.constant;
            Some(format!("{name} is constant: {}", item.constant))
        }
        1 if item.class.is_function() => {
            item.attribute = if item.attribute.is_empty() {
                "__declspec(noinline) "
            } else {
                ""
            };
            Some(format!("attributes of {name}: {}", item.attribute))
        }
        2 if item.class.declaration.is_some() && item.unit != HEADER && keeps_name => {
            item.linkage = to;
            Some(format!("{name} is {to:?}"))
        }
        _ => None,
    }
}

/// Moves an item to another source.
fn move_item(program: &mut Program, dice: &mut Dice) -> Option<String> {
    let to = dice.below(program.units.len());
    let cpp = program.is_cpp(to);
    let item = any_item(program, dice)?;
    let stays = item.unit == HEADER || item.class.place == Place::First;
    if stays || item.unit == to || !cpp {
        return None;
    }
    item.unit = to;
    Some(format!("{} moved to source {to}", item.name))
}

/// Edits something inside an item.
fn edit_node(grammar: &Grammar, program: &mut Program, dice: &mut Dice) -> Option<String> {
    let item = any_item(program, dice)?;
    let (id, unit, name) = (item.id, item.unit, item.name.clone());
    let mut node = item.node.clone();
    let mut count = 0;
    node.walk(&mut |_| count += 1);
    let mut maker = Maker {
        grammar,
        program,
        dice,
        unit,
    };
    // Most nodes are text, of which there is nothing to edit.
    let says = (0..30).find_map(|_| {
        let at = maker.dice.below(count);
        let mut index = 0;
        let mut says = None;
        node.walk_mut(&mut |it| {
            if index == at {
                says = change(it, &mut maker);
            }
            index += 1;
        });
        says
    })?;
    let item = program.items.iter_mut().find(|it| it.id == id)?;
    item.node = node;
    Some(format!("in {name}: {says}"))
}

fn change(node: &mut Node, maker: &mut Maker<'_>) -> Option<String> {
    match &mut node.kind {
        Kind::Int(value) => {
            let before = *value;
            *value = match maker.dice.below(4) {
                0 => value.saturating_add(1),
                1 => value.saturating_sub(1),
                _ => maker.number(),
            };
            (before != *value).then(|| format!("{before} became {value}"))
        }
        Kind::Float(quarters, _) => {
            *quarters += 1;
            Some("a float".to_owned())
        }
        Kind::Str(value) => {
            let before = value.clone();
            match maker.dice.below(4) {
                0 => value.push('!'),
                1 => value.insert(0, '-'),
                2 => value.truncate(value.len().saturating_sub(1).max(3)),
                _ => *value = maker.string(),
            }
            (before != *value).then(|| format!("\"{before}\" became \"{value}\""))
        }
        Kind::Name(class, id) => {
            let before = *id;
            let known = maker.program.seen(maker.unit, class);
            *id = *maker.dice.pick(&known)?;
            (before != *id).then(|| format!("another {}", class.name))
        }
        Kind::List(name, items) => {
            let name = name.clone();
            edit_list(&name, items, maker)
        }
        Kind::Rule(name, _) if !name.starts_with("item.") => {
            let name = name.clone();
            let made = maker.make(&name, 5)?;
            let Kind::Rule(_, parts) = made.kind else {
                return None;
            };
            node.kind = Kind::Rule(name.clone(), parts);
            Some(format!("another {name}"))
        }
        _ => None,
    }
}

fn edit_list(name: &str, items: &mut Vec<Node>, maker: &mut Maker<'_>) -> Option<String> {
    let at = maker.dice.below(items.len());
    match maker.dice.below(4) {
        0 if !items.is_empty() => {
            items.remove(at);
            Some(format!("one {name} less"))
        }
        1 if items.len() > 1 => {
            let last = items.len() - 1;
            items.swap(at, (at + 1).min(last));
            (at < last).then(|| format!("order of two {name}"))
        }
        2 if !items.is_empty() => {
            let mut copy = items.get(at)?.clone();
            maker.renumber(&mut copy);
            items.insert(at, copy);
            Some(format!("one {name} twice"))
        }
        _ => {
            let made = maker.make(name, 4)?;
            items.insert(maker.dice.below(items.len() + 1), made);
            Some(format!("one {name} more"))
        }
    }
}
