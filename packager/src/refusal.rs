//! Why a change that is understood cannot become a patch image.
//!
//! The codes HP060 to HP099 belong to this crate; [`RULES`] says for each what it means and what
//! to do. A refusal is a value: all of them are collected, and none hides another.

use std::fmt;

/// One reason why no patch image can be made, at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// One of [`RULES`].
    pub rule: Code,
    /// The function or data it is about.
    pub name: Box<str>,
    /// Bytes from the start of the function or data, where one place is meant.
    pub offset: Option<u32>,
    /// What was found there.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule.name(), self.name)?;
        if let Some(offset) = self.offset {
            write!(f, "+{offset:#x}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl Refusal {
    /// The same as the judge's findings are, with the place as evidence.
    pub fn judged(&self) -> hpbuild_differ::judge::Refusal {
        let name = hpbuild_differ::display_data(&self.name);
        let evidence = match self.offset {
            Some(offset) => format!("{name}+{offset:#x}"),
            None => name.clone(),
        };
        let message = format!("{name}: {}", self.message);
        hpbuild_differ::judge::Refusal::new(self.rule.name(), &*self.name, message, evidence)
    }
}

/// What a code means, as `hpbuild explain` prints it.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// `HP0xx`.
    pub code: &'static str,
    /// One line.
    pub title: &'static str,
    /// Why it is a rule.
    pub why: &'static str,
    /// What the author of the patch can do.
    pub remedy: &'static str,
    /// A case of it.
    pub example: &'static str,
}

macro_rules! rules {
    ($($variant:ident $code:literal $title:literal, $why:literal, $remedy:literal, $example:literal;)*) => {
        /// The rules of this crate.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// The rule behind the code.
            pub const fn rule(self) -> &'static Rule {
                &RULES[self as usize]
            }

            /// `HP0xx`.
            pub const fn name(self) -> &'static str {
                self.rule().code
            }
        }

        /// Every rule of this crate, in the order of the codes.
        pub const RULES: &[Rule] = &[$(Rule {
            code: $code,
            title: $title,
            why: $why,
            remedy: $remedy,
            example: $example,
        },)*];
    };
}

rules! {
    NotUnderstood "HP060" "a reference is not understood",
        "An operand or pointer of a function that goes into the patch points at something that no symbol, constant, import or jump table explains. What it should reach in the base is unknown, so nothing is guessed. Writable data without a name is the base's where unchanged code shows which it is, and new where the base has nothing left that it could be; otherwise it may hold what the process has.",
        "Build both images with full debug information; if the place is data without a symbol, give it one. Optimisers make the members of a static structure variables without names, and a byte without a name of a flag: declare it with __attribute__((used)), or without static, in both builds, and it stays whole.",
        "Assembly reads a variable without a symbol that no unchanged function reaches.";
    NotInBase "HP061" "the base has no counterpart",
        "The fixed function uses something that the running base does not have and that cannot be carried by the patch: an import, a thread-local variable, or data whose counterpart is not known.",
        "Write the fix with what the base already has.",
        "The fixed function calls an import that the base does not have.";
    ShortBranch "HP062" "a short branch leaves the function",
        "A one-byte branch goes to code outside the function; it cannot reach a thunk, and no instruction may be moved.",
        "Compile the fixed build so that the function does not fall or branch into a neighbour (no tail merging across functions).",
        "A one-byte jmp from the end of one function into the next.";
    InstructionForm "HP063" "an instruction cannot reach the base",
        "The instruction addresses base data in a form that has no equivalent of the same length and no stub: an address-size or segment prefix, a store through a stack push, or an encoding that the assembler cannot reproduce.",
        "Change the source or the optimisation level so that another instruction is chosen.",
        "push [limit]: there is no push of the same length through a pointer.";
    StackOperand "HP064" "no register is free for a stack instruction",
        "The instruction names the stack pointer as well as base data. The stub would have to save a register on the stack, which changes that operand, and no register is proven to be free.",
        "Change the source or the optimisation level so that another instruction is chosen.",
        "mov [saved_stack], rsp in a function that returns a value of its caller's right after.";
    MayRaise "HP065" "an instruction that may raise leaves its handler's range",
        "The instruction reads base data through a stub, may raise an exception (a division), and the function has an exception handler whose ranges do not cover the stub.",
        "Load the value into a variable outside the guarded block.",
        "div [divisor] inside __try.";
    HandlerData "HP066" "the exception handler's data is not understood",
        "The function has an exception handler that is not known, or data of a known one in a form that is not rewritten; copied as it stands it could hold addresses that lead astray. Scope tables, the stack cookie's data and the tables of __CxxFrameHandler3 and __CxxFrameHandler4 are carried. Where the base lists the places at which code may go on after an exception (/guard:ehcont), the patch lists those of its own functions as the fixed image does; a fixed image that does not list them leaves them unknown.",
        "Build the fixed image with /guard:ehcont where the base was. Otherwise keep the change out of functions with such handlers, or restart instead.",
        "A function of a Rust or MinGW build whose handler is its language's own personality routine.";
    UnwindInfo "HP067" "unwind info is not understood",
        "The unwind info of the function is malformed, has an unknown version, or does not agree with its extent.",
        "Report the compiler and version that produced it.",
        "UNWIND_INFO of version 7.";
    PageSplit "HP068" "one page register serves places that are no longer on one page",
        "Several instructions share one page-forming instruction, and what they reach lies on different pages in the base or the patch.",
        "Compile the function with less sharing (for instance without link-time optimisation).",
        "One page-forming instruction serves two variables that lie on one page in the fixed image and on two in the base.";
    OutOfReach "HP069" "a target is out of reach",
        "The distance between an instruction and its target in the patch does not fit the instruction.",
        "Split the patch; it is larger than the instruction can span.",
        "adr reaches one megabyte, and the patch holds two megabytes of new variables in between.";
    MixedImageBase "HP070" "image-relative operands of two images in one function",
        "The function adds image-relative addresses of both base data and patch data to one register that holds the image base.",
        "Compile the function without jump tables, or keep the image-relative data out of it.",
        "__ImageBase is added to the entries of a switch table, which the patch carries, and to the offset of a variable, which the base has.";
    Alignment "HP071" "data is less aligned in the base",
        "An instruction wants its operand aligned, and in the base the data is not: an Arm64 load or store that scales its offset, or a vector instruction of x64, of the function that takes the address or by it. Compilers align a variable to what the code that uses it can make use of, so that a fix may change where it lies.",
        "Keep the base's alignment: set the members one by one through a volatile pointer, or compile the function without vectorising it.",
        "ldr x0 of a variable that is aligned to eight in the fixed image and to four in the base.";
    ThreadLocal "HP072" "thread-local storage",
        "The function reaches a thread-local variable, and the thread-local storage of base and fixed image is laid out differently, or holds other initial values. The offsets in the code would not be those of the base.",
        "Leave the thread-local variables of the image as they are; or move the use into a function that does not change.",
        "The fix adds a __declspec(thread) variable and uses it.";
    JumpTable "HP073" "a jump table is not understood",
        "The function jumps through a table whose place, size or entries are not known for certain.",
        "Build with debug information that describes jump tables, or without jump tables.",
        "Assembly jumps through a table between its own instructions, of which no record tells.";
    Neighbour "HP074" "data is reached beyond its symbol",
        "The address of one symbol is used to reach its neighbours, is also that of the end of the array before it, or an index that starts at another number than 0 may count from there into what lies behind, and the group does not lie the same way in base, fixed image and patch. Or several copies that the patch needs have bytes in common and cannot be one, so that something would have two addresses.",
        "Compile without merging of globals; put something between an array and what follows it.",
        "buffer has 16 entries in the base and 32 in the fixed image, and the fixed function writes to entry 20.";
    DataNotUnderstood "HP075" "data that must be copied is not understood",
        "The patch needs a copy of data that holds relative addresses or whose extent is not known. Or it holds the address of a variable of another DLL that the C runtime of MinGW fills in at the start (auto-import), which it does for the images that were loaded, not for a copy.",
        "Give the data a symbol with a type, or keep it unchanged. Declare variables of other DLLs with __declspec(dllimport).",
        "A new table of four-byte addresses counted from the start of the image.";
    Previous "HP076" "the older patch is not carried",
        "Patches over one base are cumulative: the system reverts every function an older patch redirected and a newer one does not mention. The older patch redirects functions that this one does not.",
        "Build from a fixed image that still holds the older fixes.",
        "The older patch redirects parse; the fixed image of the new one was built without that fix.";
    SequenceNumber "HP077" "the sequence number is not higher",
        "The older patch has the same or a higher sequence number.",
        "Pass a higher sequence number.",
        "--sequence 3 over a patch of sequence 3.";
    EntryTooShort "HP078" "the base function is too short to redirect",
        "The base function is shorter than the bytes that a redirection writes.",
        "Restart instead of hotpatching this function.",
        "The base function is one byte long: ret.";
    NoEntry "HP079" "no one entry to redirect",
        "A cold part that the compiler moved away from its function is jumped into with registers in use, so it has no entry that can be redirected; and where the linker folded functions differently in the two images, one base function may have several replacements.",
        "Compile without splitting of cold code, and link without identical code folding.",
        "get_width and get_count are one body in the base, and the fix changes both, each in its own way.";
    GuardTarget "HP080" "a call through a pointer that the base does not allow",
        "The patch takes the address of a function that stays in the base and whose address the base takes nowhere: it is not in the base's table of functions that may be called through pointers (control flow guard), and the first guarded call to it ends the process.",
        "Take the address of a new function that calls it: that one lives in the patch, whose own table lists it.",
        "The fix hands a static function to qsort that the base only calls by name.";
}

/// The rule with this code, or `None`.
pub fn rule(code: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_range() {
        assert!(RULES.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(
            RULES
                .iter()
                .all(|rule| ("HP060".."HP100").contains(&rule.code))
        );
        assert_eq!(Code::NoEntry.name(), "HP079");
    }
}
