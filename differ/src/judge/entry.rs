//! Can a base function be redirected at its entry?

use std::collections::BTreeMap;

use hpbuild_metadata::{Base, FunctionId, Machine, Rva};

use super::{Case, Refusal, padding};
use crate::decode::{Body, ReferenceKind, decode};
use crate::image::Image;
use crate::read::code_at;

/// Bytes an Arm64 branch reaches in either direction.
const BRANCH_REACH: u32 = 128 << 20;
/// Room to leave behind an image for its hot patch address table.
const TABLE_RESERVE: u32 = 1 << 20;
/// `IMAGE_GUARD_XFG_ENABLED` (public SDK header).
const XFG_ENABLED: u32 = 0x0080_0000;

pub(super) fn judge(case: &Case<'_>) -> Vec<Refusal> {
    let image = case.comparer.base;
    let mut refusals = Vec::new();
    let reach = BRANCH_REACH - TABLE_RESERVE;
    let is_arm64 = image.pe.machine == Machine::Arm64;
    if is_arm64 && !case.redirected.is_empty() && image.pe.image_size > reach {
        let evidence = format!("image of {:#x} bytes", image.pe.image_size);
        let message = "the base is too large to be redirected";
        refusals.push(Refusal::new("HP019", "", message, evidence));
    }
    let mut redirected = case.redirected.clone();
    // A body that pairs with several is listed once for each.
    redirected.sort_unstable();
    redirected.dedup_by_key(|(id, _)| *id);
    let bodies: Vec<_> = redirected.iter().map(|(id, _)| *id).collect();
    let in_use = match image.pe.machine {
        Machine::X64 => padding::in_use(image, &bodies),
        Machine::Arm64 => BTreeMap::new(),
    };
    let pairing = case.comparer.pairing;
    for (id, partner) in redirected {
        let (name, _) = pairing.shown_names((image, id), (case.comparer.fixed, partner));
        entry(image, (id, &name), in_use.get(&id), &mut refusals);
    }
    refusals
}

fn entry(
    image: &Image<Base>,
    (id, name): (FunctionId<Base>, &str),
    in_use: Option<&String>,
    refusals: &mut Vec<Refusal>,
) {
    let function = image.function(id);
    let at = format!("rva {}", function.rva);
    let mut refuse = |code, message: &str, evidence: String| {
        refusals.push(Refusal::new(
            code,
            name,
            format!("{name} {message}"),
            evidence,
        ));
    };
    if image
        .pe
        .section_at(function.rva)
        .is_some_and(|section| section.is_discardable())
    {
        refuse("HP017", "lies in a discardable section", at.clone());
    }
    let code = image.code_of(id);
    let least = match image.pe.machine {
        Machine::X64 => 2,
        Machine::Arm64 => 4,
    };
    if code.len() < least {
        refuse(
            "HP016",
            "is too short to be redirected",
            format!("{} bytes at {at}", code.len()),
        );
        return;
    }
    let mut body = Body::default();
    let whole = code_at(&image.pe, &image.table_jumps, function);
    decode(image.pe.machine, whole, &mut body);
    let back = body.instructions.iter().find(|instruction| {
        instruction.reference.is_some_and(|reference| {
            let distance = reference.target.checked_sub(function.rva);
            is_jump(reference.kind) && distance.is_some_and(|bytes| (bytes as usize) < least)
        })
    });
    if let Some(back) = back {
        refuse(
            "HP012",
            "branches back to its entry",
            format!("{name}+{:#x}", back.offset),
        );
    }
    if let Some(found) = in_use {
        let message = "has no padding to be redirected through";
        refuse("HP010", message, found.clone());
    }
    match image.pe.machine {
        Machine::X64 => x64_entry(image, function.rva, code, &body, &mut refuse),
        Machine::Arm64 => {
            let word = code
                .first_chunk()
                .map_or(0, |word| u32::from_le_bytes(*word));
            // BTI, BTI c, BTI j and BTI jc are HINT 32, 34, 36 and 38.
            if word & 0xffff_ff3f == 0xd503_241f {
                refuse(
                    "HP014",
                    "starts with a landing pad",
                    format!("{word:#010x} at {at}"),
                );
            }
        }
    }
}

fn is_jump(kind: ReferenceKind) -> bool {
    matches!(kind, ReferenceKind::Jump | ReferenceKind::ConditionalJump)
}

fn x64_entry(
    image: &Image<Base>,
    rva: Rva<Base>,
    code: &[u8],
    body: &Body<Base>,
    refuse: &mut dyn FnMut(&'static str, &str, String),
) {
    let start = format!("{:02x} {:02x} at rva {rva}", code[0], code[1]);
    if body
        .instructions
        .first()
        .is_some_and(|first| first.length < 2)
    {
        refuse(
            "HP011",
            "starts with an instruction of one byte",
            start.clone(),
        );
    }
    if code[0] == 0xeb && code[1] >= 0xee {
        refuse("HP013", "looks redirected already", start);
    }
    if code.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) {
        refuse(
            "HP014",
            "starts with a landing pad",
            format!("endbr64 at rva {rva}"),
        );
    }
    let guard_flags = image
        .pe
        .load_config
        .as_ref()
        .map_or(0, |config| config.guard_flags);
    if guard_flags & XFG_ENABLED != 0 {
        let evidence = format!("GuardFlags {guard_flags:#x}");
        refuse("HP015", "has a type hash before its entry", evidence);
    }
}
