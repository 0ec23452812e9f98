//! Which function of the fixed image is which function of the base.
//!
//! Names are what pairs are made of, so it is procedures that are paired, one to one; bodies
//! follow (several names may share one body where the linker folded). Tiers run from sure to
//! likely. In each tier a key that occurs once among the unpaired of both sides makes a pair; a
//! key that occurs more often makes none, and is left to the next tier, which looks at more. What
//! is left at the end is unmatched and reported as such: a guess would be worse. Names that are
//! places in sources are held against each other before, and names of types that functions declare: see
//! `pair/sites.rs` and `pair/locals.rs`.
//!
//! | tier | key |
//! |---|---|
//! | decorated | linkage name |
//! | name-compiland | name and compiland |
//! | name-type-compiland | name without numbers of `impl` blocks, type layout and compiland |
//! | name | name and type, where a number is no part of it: a function that moved to another compiland, unless both compilands are in both images |
//! | name-content | name that counts lambdas or closures, and meaning of the body |
//! | generated | name without the parts a compiler numbers or hashes, and compiland |
//! | funclet | the function it belongs to, and what it does for it |
//! | name-content | name and compiland, and meaning of the body |
//! | name-content | name, without those parts, and meaning of the body |
//! | order | name, without those parts, compiland, and the number in it or the position among its namesakes, where both sides have as many and a compiler made the names, or where all do the same |
//! | callers | name and type of static functions, and which of its namesakes paired functions call |
//! | content | meaning of the body alone |

mod called;
mod content;
mod data;
pub(crate) mod funclet;
mod homes;
mod keys;
mod lambdas;
mod locals;
mod once;
mod places;
mod sites;
mod tiers;
mod votes;

use hpbuild_metadata::{Base, DataId, Fixed, FunctionId, Side};
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::image::Image;

use keys::Names;
pub(crate) use keys::stable_name;
use tiers::Pairs;

/// How sure a pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// The linkage name, unique on both sides.
    Decorated,
    /// Name and compiland.
    NameCompiland,
    /// Name, type layout and compiland.
    NameTypeCompiland,
    /// The name and the type, unique on both sides.
    Name,
    /// The name without what a compiler numbers or hashes, and compiland.
    Generated,
    /// The function that a funclet belongs to, and its role there.
    Funclet,
    /// Name and meaning of the body.
    NameContent,
    /// Number or position among namesakes of one compiland that a compiler made, or that do the same.
    Order,
    /// Name and type of a static function, and who calls it.
    Callers,
    /// Meaning of the body.
    Content,
}

/// Everything that was matched.
#[derive(Debug)]
pub struct Pairing {
    /// For each base procedure its partner and the tier.
    base_procedures: Vec<Option<(u32, Tier)>>,
    /// For each fixed procedure its partner.
    fixed_procedures: Vec<Option<u32>>,
    /// Bodies that share a pair of names, or were matched by content; sorted.
    bodies: Vec<(FunctionId<Base>, FunctionId<Fixed>, Tier)>,
    /// For each base body where in `bodies` its own pairs begin, with an end mark.
    starts: Vec<u32>,
    /// The same the other way round; sorted.
    bodies_by_fixed: Vec<(FunctionId<Fixed>, FunctionId<Base>)>,
    base_data: Vec<Option<DataId<Fixed>>>,
    fixed_data: Vec<Option<DataId<Base>>>,
    /// Data without a partner, which may be a namesake of the other side; sorted.
    doubtful_base: Vec<DataId<Base>>,
    doubtful_fixed: Vec<DataId<Fixed>>,
    /// For static locals without a linkage name the function that declares them.
    base_homes: FxHashMap<u32, Box<str>>,
    fixed_homes: FxHashMap<u32, Box<str>>,
}

impl Pairing {
    /// The fixed procedure paired with a base procedure (both as indexes of
    /// [`Image::procedures`]), and the tier.
    pub fn fixed_procedure(&self, base: u32) -> Option<(u32, Tier)> {
        self.base_procedures.get(base as usize).copied().flatten()
    }

    /// The base procedure paired with a fixed procedure.
    pub fn base_procedure(&self, fixed: u32) -> Option<u32> {
        self.fixed_procedures.get(fixed as usize).copied().flatten()
    }

    /// Pairs of bodies, sorted by base, then fixed.
    pub fn bodies(&self) -> &[(FunctionId<Base>, FunctionId<Fixed>, Tier)] {
        &self.bodies
    }

    /// Whether some name of the base body is paired with some name of the fixed body.
    pub fn linked(&self, base: FunctionId<Base>, fixed: FunctionId<Fixed>) -> bool {
        let pairs = self.pairs_of(base);
        pairs.binary_search_by_key(&fixed, |pair| pair.1).is_ok()
    }

    /// The fixed bodies paired with a base body; several where folding differs.
    pub fn fixed_functions(
        &self,
        base: FunctionId<Base>,
    ) -> impl Iterator<Item = FunctionId<Fixed>> + '_ {
        self.pairs_of(base).iter().map(|pair| pair.1)
    }

    /// What told that a base body and its partner are one; of the first one where there are several.
    pub(crate) fn tier_of(&self, base: FunctionId<Base>) -> Option<Tier> {
        self.pairs_of(base).first().map(|pair| pair.2)
    }

    fn pairs_of(&self, base: FunctionId<Base>) -> &[(FunctionId<Base>, FunctionId<Fixed>, Tier)] {
        let at = |index: usize| self.starts.get(index).map(|start| *start as usize);
        let (start, end) = (at(base.index()), at(base.index() + 1));
        let range = start.zip(end).map_or(0..0, |(start, end)| start..end);
        &self.bodies[range]
    }

    /// The base bodies paired with a fixed body; several where folding differs.
    pub fn base_functions(
        &self,
        fixed: FunctionId<Fixed>,
    ) -> impl Iterator<Item = FunctionId<Base>> + '_ {
        let start = self.bodies_by_fixed.partition_point(|pair| pair.0 < fixed);
        let rest = &self.bodies_by_fixed[start..];
        rest.iter()
            .take_while(move |pair| pair.0 == fixed)
            .map(|pair| pair.1)
    }

    /// The base body that stands for a fixed body; the first where folding made several.
    pub fn base_function(&self, fixed: FunctionId<Fixed>) -> Option<FunctionId<Base>> {
        self.base_functions(fixed).next()
    }

    /// The names of a base body that lead to this fixed body (indexes of [`Image::procedures`]). Of
    /// names that the linker folded into one body not all need to.
    pub fn names_of(
        &self,
        (base, base_id): (&Image<Base>, FunctionId<Base>),
        (fixed, fixed_id): (&Image<Fixed>, FunctionId<Fixed>),
    ) -> impl Iterator<Item = u32> {
        let of_fixed = fixed.function(fixed_id).procedures.clone();
        let names = base.function(base_id).procedures.clone();
        names.filter(move |index| {
            let partner = self.fixed_procedure(*index);
            partner.is_some_and(|(partner, _)| of_fixed.contains(&partner))
        })
    }

    /// What a base body and the fixed one that takes its place are called: of names that the linker
    /// folded into one body those that lead from the one to the other.
    pub fn shown_names(
        &self,
        base: (&Image<Base>, FunctionId<Base>),
        fixed: (&Image<Fixed>, FunctionId<Fixed>),
    ) -> (String, String) {
        let first = self.names_of(base, fixed).next();
        let partner = first.and_then(|index| self.fixed_procedure(index));
        match first.zip(partner) {
            Some((name, (partner, _))) => (
                base.0.procedures[name as usize].display(),
                fixed.0.procedures[partner as usize].display(),
            ),
            None => (base.0.display_name(base.1), fixed.0.display_name(fixed.1)),
        }
    }

    /// The fixed data symbol paired with a base one.
    pub fn fixed_data(&self, base: DataId<Base>) -> Option<DataId<Fixed>> {
        self.base_data[base.index()]
    }

    /// The base data symbol paired with a fixed one.
    pub fn base_data(&self, fixed: DataId<Fixed>) -> Option<DataId<Base>> {
        self.fixed_data[fixed.index()]
    }

    /// Whether base data has no partner because several have its name, one of which it may be.
    pub fn is_doubtful_base(&self, base: DataId<Base>) -> bool {
        self.doubtful_base.binary_search(&base).is_ok()
    }

    /// Whether data of the fixed image has no partner because several have its name.
    pub fn is_doubtful_fixed(&self, fixed: DataId<Fixed>) -> bool {
        self.doubtful_fixed.binary_search(&fixed).is_ok()
    }

    /// The function that declares a static local of the base; `None` where it has a linkage name,
    /// which tells that, and where nothing does.
    pub(crate) fn base_home(&self, base: DataId<Base>) -> Option<&str> {
        let index = u32::try_from(base.index()).ok()?;
        self.base_homes.get(&index).map(|it| &**it)
    }

    /// The same of a static local of the fixed image.
    pub(crate) fn fixed_home(&self, fixed: DataId<Fixed>) -> Option<&str> {
        let index = u32::try_from(fixed.index()).ok()?;
        self.fixed_homes.get(&index).map(|it| &**it)
    }
}

/// Pairs the functions and the data of two images.
pub fn pair(base: &Image<Base>, fixed: &Image<Fixed>) -> Pairing {
    let (base_owners, fixed_owners) = rayon::join(|| owners(base), || owners(fixed));
    let mut pairs = Pairs::new(base.procedures.len(), fixed.procedures.len());
    let b = Names::new(base, &base_owners);
    let f = Names::new(fixed, &fixed_owners);
    let sites = sites::find(&b, &f);
    let f = f.renamed(&sites.renamed);
    let locals = locals::renamed(&b, &f);
    let mut renamed = sites.renamed.clone();
    renamed.extend(locals.1);
    let b = b.renamed(&locals.0).without_namesakes(&sites.alone.0);
    let f = f.renamed(&renamed).without_namesakes(&sites.alone.1);

    pairs.tier(Tier::Decorated, |i| b.decorated(i), |i| f.decorated(i));
    pairs.tier(
        Tier::NameCompiland,
        |i| b.in_compiland(i),
        |i| f.in_compiland(i),
    );
    pairs.tier(Tier::NameCompiland, |i| b.in_place(i), |i| f.in_place(i));
    // Parts of the C++ library are compiled twice, with as many namesakes in each.
    pairs.tier(
        Tier::Decorated,
        |i| b.decorated_in_compiland(i),
        |i| f.decorated_in_compiland(i),
    );
    pairs.tier(
        Tier::NameTypeCompiland,
        |i| b.with_type(i),
        |i| f.with_type(i),
    );
    pairs.tier_if(
        Tier::Name,
        |i| b.typed_name(i),
        |i| f.typed_name(i),
        |base, fixed| !b.is_other(base, &f, fixed),
    );
    pair_counted(&mut pairs, &b, &f);
    pairs.tier(Tier::Generated, |i| b.generated(i), |i| f.generated(i));
    funclet::pair_funclets(&mut pairs, &b, &f);

    // The meaning of a body is told by the names of what it refers to, which no later tier
    // changes, so these need no repetition to reach a fixed point.
    let contents = content::Contents::of_unpaired(base, fixed, &b, &f, &pairs);
    pairs.tier(
        Tier::NameContent,
        |i| b.numbered(i, contents.base(b.owners[i as usize])),
        |i| f.numbered(i, contents.fixed(f.owners[i as usize])),
    );
    let by_name = |name, content: Option<u64>| content.map(|content| (name, content));
    // Destructors of one class may have one name and type.
    pairs.tier(
        Tier::NameContent,
        |i| b.at_content(i, contents.deep_base(b.owners[i as usize])),
        |i| f.at_content(i, contents.deep_fixed(f.owners[i as usize])),
    );
    pairs.tier(
        Tier::NameContent,
        |i| by_name(b.stable_name(i), contents.deep_base(b.owners[i as usize])),
        |i| by_name(f.stable_name(i), contents.deep_fixed(f.owners[i as usize])),
    );
    pairs.tier(
        Tier::NameContent,
        |i| by_name(b.stable_name(i), contents.base(b.owners[i as usize])),
        |i| by_name(f.stable_name(i), contents.fixed(f.owners[i as usize])),
    );
    // What was told apart by content leaves others alone with their name.
    pairs.tier(
        Tier::NameCompiland,
        |i| b.in_compiland(i),
        |i| f.in_compiland(i),
    );
    pairs.tier(Tier::Generated, |i| b.generated(i), |i| f.generated(i));
    pairs.order(&b, &f);
    if called::pair_called(&mut pairs, &b, &f) {
        funclet::pair_funclets(&mut pairs, &b, &f);
    }
    pairs.tier(
        Tier::Content,
        |i| contents.whole_base(b.owners[i as usize]),
        |i| contents.whole_fixed(f.owners[i as usize]),
    );
    // And so does what got another name.
    pairs.tier(
        Tier::NameCompiland,
        |i| b.in_compiland(i),
        |i| f.in_compiland(i),
    );

    let bodies = bodies(base, fixed, &pairs, &b, &f, &contents);
    let mut bodies_by_fixed: Vec<_> = bodies.iter().map(|&(b, f, _)| (f, b)).collect();
    bodies_by_fixed.sort_unstable();
    let data = data::pair_data(
        base,
        fixed,
        (&pairs.fixed, &bodies),
        (&base_owners, &fixed_owners),
    );
    Pairing {
        base_procedures: pairs.base,
        fixed_procedures: pairs.fixed,
        starts: starts(&bodies, base.functions.len()),
        bodies,
        bodies_by_fixed,
        base_data: data.paired.0,
        fixed_data: data.paired.1,
        doubtful_base: data.doubtful.0,
        doubtful_fixed: data.doubtful.1,
        base_homes: data.homes.0,
        fixed_homes: data.homes.1,
    }
}

/// Pairs lambdas and closures that have the same number and mean the same. What is left of a
/// function's is told apart without the numbers.
fn pair_counted(pairs: &mut Pairs, b: &Names<'_, Base>, f: &Names<'_, Fixed>) {
    let contents = content::Contents::of_counted(b, f, pairs);
    pairs.tier(
        Tier::NameContent,
        |i| b.counted(i, contents.deep_base(b.owners[i as usize])),
        |i| f.counted(i, contents.deep_fixed(f.owners[i as usize])),
    );
}

/// For each of `count` base bodies where its pairs begin, and where the last one's end.
fn starts(bodies: &[(FunctionId<Base>, FunctionId<Fixed>, Tier)], count: usize) -> Vec<u32> {
    let mut starts = vec![0_u32; count + 1];
    for (base, ..) in bodies {
        starts[base.index() + 1] += 1;
    }
    for index in 1..starts.len() {
        starts[index] += starts[index - 1];
    }
    starts
}

/// For each procedure of an image the function it names.
pub(crate) fn owners<S: Side>(image: &Image<S>) -> Vec<FunctionId<S>> {
    let mut owners = vec![FunctionId::new(0); image.procedures.len()];
    for id in image.function_ids() {
        for index in image.function(id).procedures.clone() {
            owners[index as usize] = id;
        }
    }
    owners
}

fn bodies(
    base: &Image<Base>,
    fixed: &Image<Fixed>,
    pairs: &Pairs,
    b: &Names<'_, Base>,
    f: &Names<'_, Fixed>,
    contents: &content::Contents,
) -> Vec<(FunctionId<Base>, FunctionId<Fixed>, Tier)> {
    let mut bodies: Vec<_> = (0_usize..)
        .zip(&pairs.base)
        .filter_map(|(index, pair)| {
            let (fixed, tier) = (*pair)?;
            Some((b.owners[index], f.owners[fixed as usize], tier))
        })
        .collect();
    // Bodies that only an unwind entry tells of have no name to be paired by.
    let unnamed = |range: &std::ops::Range<u32>| range.is_empty();
    let mut buckets: FxHashMap<u64, (Vec<_>, Vec<_>)> = FxHashMap::default();
    for id in base
        .function_ids()
        .filter(|id| unnamed(&base.function(*id).procedures))
    {
        if let Some(content) = contents.base(id) {
            buckets.entry(content).or_default().0.push(id);
        }
    }
    for id in fixed
        .function_ids()
        .filter(|id| unnamed(&fixed.function(*id).procedures))
    {
        if let Some(bucket) = contents.fixed(id).and_then(|key| buckets.get_mut(&key)) {
            bucket.1.push(id);
        }
    }
    #[allow(clippy::iter_over_hash_type)]
    for (base, fixed) in buckets.into_values() {
        // Bodies without a name and of equal meaning are interchangeable.
        if base.len() == fixed.len() {
            bodies.extend(
                base.into_iter()
                    .zip(fixed)
                    .map(|(b, f)| (b, f, Tier::Content)),
            );
        }
    }
    bodies.sort_unstable();
    // Several names may link the same two bodies; the surest counts.
    bodies.dedup_by_key(|pair| (pair.0, pair.1));
    bodies
}
