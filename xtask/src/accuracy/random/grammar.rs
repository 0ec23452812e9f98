//! `grammar.txt`: the ways to write what random programs are made of.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::dice::Dice;

/// The ways, by what they are ways to write.
pub(super) struct Grammar {
    rules: BTreeMap<String, Vec<Way>>,
    /// The least number of rules below each other that writing something takes.
    depths: BTreeMap<String, usize>,
}

/// One way to write something.
pub(super) struct Way {
    language: Option<Language>,
    weight: usize,
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    C,
    Cpp,
}

/// A piece of a template.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// As it stands.
    Text(String),
    /// Something by its name.
    One(String),
    /// Several of it.
    Many(String),
}

/// What is no rule, and no class of items either.
pub(super) const LEAVES: [&str; 8] = [
    "int", "float", "single", "str", "again", "own", "index", "fresh",
];

impl Grammar {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// A line does not follow the layout that the file describes, or names nothing.
    pub(super) fn read() -> Result<Grammar> {
        let mut rules = BTreeMap::<String, Vec<Way>>::new();
        let text = include_str!("grammar.txt");
        let lines = text.lines().enumerate();
        for (number, line) in lines.filter(|(_, it)| !it.is_empty() && !it.starts_with('#')) {
            let (name, way) = way(line).with_context(|| format!("grammar.txt:{}", number + 1))?;
            rules.entry(name).or_default().push(way);
        }
        let mut grammar = Grammar {
            rules,
            depths: BTreeMap::new(),
        };
        grammar.measure();
        for (name, ways) in &grammar.rules {
            for part in ways.iter().flat_map(|it| &it.parts) {
                if let Part::One(other) | Part::Many(other) = part {
                    let known = is_leaf(other) || grammar.depths.contains_key(other);
                    if !known {
                        bail!("grammar.txt: {name}: nothing says what `{other}` is");
                    }
                }
            }
        }
        Ok(grammar)
    }

    fn measure(&mut self) {
        loop {
            let mut found = Vec::new();
            for (name, ways) in &self.rules {
                let least = ways.iter().filter_map(|it| self.depth(it)).min();
                if least.is_some() && least != self.depths.get(name).copied() {
                    found.extend(least.map(|least| (name.clone(), least)));
                }
            }
            if found.is_empty() {
                return;
            }
            self.depths.extend(found);
        }
    }

    fn depth(&self, way: &Way) -> Option<usize> {
        let mut deepest = 0;
        for part in &way.parts {
            match part {
                Part::One(name) if !is_leaf(name) => {
                    deepest = deepest.max(*self.depths.get(name)?);
                }
                // A list may be empty.
                _ => {}
            }
        }
        Some(deepest + 1)
    }

    /// One of the ways to write something; one of the shortest, where there should be no more.
    pub(super) fn choose(
        &self,
        name: &str,
        language: Language,
        shortest: bool,
        dice: &mut Dice,
    ) -> Option<&Way> {
        let ways = self.rules.get(name)?;
        let fits = |it: &&Way| it.language.is_none_or(|only| only == language);
        let mut fitting: Vec<&Way> = ways.iter().filter(fits).collect();
        if shortest {
            let least = fitting.iter().filter_map(|it| self.depth(it)).min();
            fitting.retain(|it| self.depth(it) == least);
        }
        let mut at = dice.below(fitting.iter().map(|it| it.weight).sum());
        fitting.into_iter().find(|it| {
            let found = at < it.weight;
            at = at.wrapping_sub(it.weight);
            found
        })
    }
}

/// Whether this is written without a rule.
pub(super) fn is_leaf(name: &str) -> bool {
    name.contains('.') || LEAVES.contains(&name)
}

/// A line: what it is a way to write, and how.
fn way(line: &str) -> Result<(String, Way)> {
    let (head, template) = line.split_once(" =").context("no `=`")?;
    let mut words = head.split(' ');
    let name = words.next().unwrap_or_default();
    let weight = words.next().unwrap_or("1").parse();
    let (name, language) = match name.split_once('/') {
        None => (name, None),
        Some((name, "c")) => (name, Some(Language::C)),
        Some((name, "cpp")) => (name, Some(Language::Cpp)),
        Some((_, other)) => bail!("no language is called `{other}`"),
    };
    let template = template.strip_prefix(' ').unwrap_or(template);
    let way = Way {
        language,
        weight: weight.context("how often is no number")?,
        parts: parts(&template.replace("\\n", "\n")),
    };
    Ok((name.to_owned(), way))
}

fn parts(template: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('@') {
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '.';
        let end = after.find(|it| !is_name(it)).unwrap_or(after.len());
        let (name, behind) = after.split_at(end);
        rest = behind;
        if let Some(behind) = behind.strip_prefix('*') {
            parts.push(Part::Many(name.to_owned()));
            rest = behind;
        } else {
            parts.push(Part::One(name.to_owned()));
        }
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    parts
}
