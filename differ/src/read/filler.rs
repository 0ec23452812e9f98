//! Where code ends that has no record of its size, and the filler behind it starts.
//!
//! The Microsoft linker and lld fill with `int3`, and objects with zeros; GNU's assembler and linker
//! fill with instructions that do nothing, one or nine bytes long. Those are filler behind what does
//! not go on alone: elsewhere control comes through them.
//!
//! ```text
//! jmp  [__imp_free]           ; the thunk
//! nop                         ; its alignment, from the library
//! nop
//! nopl 0x0(%rax,%rax,1)       ; that of the object behind
//! ```

use hpbuild_metadata::{Machine, Side};

use crate::decode::{Body, Code, Flow, Instruction, decode, flow, runs_on};

/// The instruction of Arm64 that does nothing.
const NOP: [u8; 4] = [0x1f, 0x20, 0x03, 0xd5];

/// The bytes of code without the filler behind it. `code` ends where something else is known to start.
pub(super) fn without_filler<S: Side>(machine: Machine, code: Code<'_, S>) -> u32 {
    let size = u32::try_from(code.bytes.len()).expect("a function is smaller than 4 GiB");
    let last = |bytes: &[u8]| match machine {
        Machine::X64 => bytes.last().is_some_and(|it| matches!(it, 0xcc | 0 | 0x90)),
        Machine::Arm64 => padding_behind(machine, bytes) > 0 || bytes.ends_with(&NOP),
    };
    // Most has none, and decoding takes long.
    if !last(code.bytes) {
        return size;
    }
    let mut body = Body::default();
    decode(machine, code, &mut body);
    let offset = |index: usize| body.instructions.get(index).map_or(size, |it| it.offset);
    let led_to = body.instructions.iter().filter_map(|it| it.reference);
    let led_to = led_to.filter_map(|it| it.target.checked_sub(code.rva));
    let furthest = led_to.filter(|at| *at < size).max().unwrap_or(0);
    let mut end = body.instructions.len();
    loop {
        let before = end;
        // The last instruction may end in bytes that look like filler: it belongs to the code.
        let rest = offset(end);
        let code_end = rest - padding_behind(machine, &code.bytes[..rest as usize]);
        end = end.min(body.instructions.partition_point(|it| it.offset < code_end));
        end -= nops_behind(machine, code, &body.instructions[..end], furthest);
        if end == before {
            return offset(end);
        }
    }
}

/// Whether code is nothing but instructions that do nothing.
pub(super) fn is_filler<S: Side>(machine: Machine, code: Code<'_, S>) -> bool {
    let mut body = Body::default();
    decode(machine, code, &mut body);
    let is_nop = |it: &Instruction<S>| is_nop(machine, code, it);
    !body.instructions.is_empty() && body.instructions.iter().all(is_nop)
}

fn is_nop<S: Side>(machine: Machine, code: Code<'_, S>, it: &Instruction<S>) -> bool {
    let bytes = bytes_of(code, it);
    it.valid && bytes.is_some_and(|bytes| runs_on(machine, bytes).is_none())
}

fn bytes_of<'a, S: Side>(code: Code<'a, S>, it: &Instruction<S>) -> Option<&'a [u8]> {
    let start = it.offset as usize;
    code.bytes.get(start..start + usize::from(it.length))
}

/// Bytes at the end of `bytes` that are filler wherever they stand: int3, zeros, and on Arm64 breakpoints.
fn padding_behind(machine: Machine, bytes: &[u8]) -> u32 {
    let filler = match machine {
        Machine::X64 => bytes
            .iter()
            .rev()
            .take_while(|byte| matches!(**byte, 0xcc | 0))
            .count(),
        Machine::Arm64 => {
            let is_filler = |word: &&[u8]| matches!(**word, [0, 0, 0, 0] | [0, 0, 0x3e, 0xd4]);
            4 * bytes.chunks_exact(4).rev().take_while(is_filler).count()
        }
    };
    u32::try_from(filler).expect("no more than the bytes given")
}

/// How many instructions at the end do nothing, and are never run: what stands before them does not go
/// on, and nothing in the code leads to them, `furthest` bytes at most behind its start.
fn nops_behind<S: Side>(
    machine: Machine,
    code: Code<'_, S>,
    instructions: &[Instruction<S>],
    furthest: u32,
) -> usize {
    let nops = instructions.iter().rev();
    let count = nops.take_while(|it| is_nop(machine, code, it)).count();
    let (before, nops) = instructions.split_at(instructions.len() - count);
    let (Some(last), Some(first)) = (before.last(), nops.first()) else {
        return 0;
    };
    let goes_on = bytes_of(code, last).is_none_or(|it| {
        // Every word of padding is one instruction on Arm64.
        let is_padding = machine == Machine::Arm64 && padding_behind(machine, it) > 0;
        let flow = flow(machine, it);
        let may_go_on = matches!(flow, Flow::Next | Flow::ConditionalJump | Flow::Call);
        !is_padding && (!last.valid || may_go_on)
    });
    match goes_on || first.offset <= furthest {
        true => 0,
        false => count,
    }
}

#[cfg(test)]
mod tests {
    use hpbuild_metadata::{Base, Rva};

    use super::*;

    fn size(bytes: &[u8]) -> u32 {
        size_on(Machine::X64, bytes)
    }

    fn size_on(machine: Machine, bytes: &[u8]) -> u32 {
        let code = Code {
            bytes,
            rva: Rva::<Base>::new(0x1000),
            image_base: 0x1_8000_0000,
            relocated: &[],
            jumps: &[],
        };
        without_filler(machine, code)
    }

    #[test]
    fn nops_of_arm64_are_filler_where_nothing_runs_them() {
        let size = |words: &[u32]| {
            let bytes: Vec<u8> = words.iter().flat_map(|it| it.to_le_bytes()).collect();
            size_on(Machine::Arm64, &bytes) / 4
        };
        let (nop, ret, add) = (0xd503_201f, 0xd65f_03c0, 0x1100_0c00);
        let (brk, blank) = (0xd43e_0000, 0);
        for filler in [&[nop, nop][..], &[nop, blank], &[brk, nop], &[blank, nop]] {
            assert_eq!(size(&[&[add, ret], filler].concat()), 2, "{filler:x?}");
        }
        // add, which goes on; cbz to the nop, and ret before it.
        assert_eq!(size(&[add, nop, nop]), 3);
        assert_eq!(size(&[0x3400_0040, ret, nop]), 3);
    }

    #[test]
    fn what_nothing_runs_is_filler() {
        // jmp [rip+0x100]
        let jump = [0xff, 0x25, 0, 1, 0, 0];
        for filler in [
            &[0x90, 0x90][..],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0x00],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
            &[0x90, 0x90, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            &[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            // What the linker adds to what the assembler did.
            &[0x90, 0xcc, 0xcc],
            &[0xcc, 0x90, 0xcc, 0x90],
            &[0x0f, 0x1f, 0x00, 0, 0],
        ] {
            assert_eq!(size(&[&jump[..], filler].concat()), 6, "{filler:x?}");
            assert_eq!(size(&[&[0xc3][..], filler].concat()), 1, "{filler:x?}");
        }
    }

    #[test]
    fn room_before_an_entry() {
        let filler = |bytes: &[u8]| {
            let code = Code {
                bytes,
                rva: Rva::<Base>::new(0x1000),
                image_base: 0x1_8000_0000,
                relocated: &[],
                jumps: &[],
            };
            is_filler(Machine::X64, code)
        };
        assert!(filler(&[0x90; 16]) && filler(&[0x66, 0x90, 0x0f, 0x1f, 0x40, 0x00]));
        // inc eax; the half of an instruction; nothing.
        assert!(!filler(&[0x90, 0xff, 0xc0]) && !filler(&[0x90, 0x0f, 0x1f]) && !filler(&[]));
    }

    #[test]
    fn what_may_run_is_code() {
        let nop = [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
        for code in [
            // inc eax; call, which may come back; jne to the start; jmp to the nop.
            &[0xff, 0xc0][..],
            &[0xe8, 0, 0, 0, 0],
            &[0x75, 0xfe],
            &[0xeb, 0],
            // je to the nop, and ret before it.
            &[0x74, 1, 0xc3],
        ] {
            let all = [code, &nop].concat();
            assert_eq!(size(&all), all.len() as u32, "{code:x?}");
        }
        // Nothing but nops: who leads there wants them.
        assert_eq!(size(&[0x90; 16]), 16);
        // mov eax, 0x90909090; and a number that ends with zeros.
        assert_eq!(size(&[0xb8, 0x90, 0x90, 0x90, 0x90]), 5);
        assert_eq!(size(&[0xb8, 1, 0, 0, 0]), 5);
    }
}
