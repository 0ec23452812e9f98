//! The rules, with what `hpbuild explain` says of each.

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// No patch is made.
    Refuse,
    /// A patch is made; somebody should look.
    Warn,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// The word used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Refuse => "refuse",
            Severity::Warn => "warn",
            Severity::Note => "note",
        }
    }
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `HP0xx`; never reused.
    pub code: &'static str,
    /// How much a finding matters.
    pub severity: Severity,
    /// In a few words.
    pub title: &'static str,
    /// Why it is a rule.
    pub why: &'static str,
    /// What to do about a finding.
    pub remedy: &'static str,
    /// A case of it.
    pub example: &'static str,
}

impl Rule {
    /// Whether a policy may allow a finding: not where nothing could be made of the images, where
    /// the system that applies the patch would refuse it or break, where the patch image could not
    /// hold it, and where nothing is refused.
    pub fn may_be_waived(&self) -> bool {
        const NEVER: [&str; 10] = [
            "HP001", "HP002", "HP003", "HP004", "HP005", "HP006", "HP009", "HP013", "HP016",
            "HP019",
        ];
        let is_of_judging = self.code < "HP060";
        is_of_judging && self.severity == Severity::Refuse && !NEVER.contains(&self.code)
    }
}

/// The rule with this code.
pub fn rule(code: &str) -> Option<&'static Rule> {
    RULES
        .iter()
        .find(|rule| rule.code.eq_ignore_ascii_case(code))
}

macro_rules! rules {
    ($($code:literal $severity:ident $title:literal why $why:literal do $remedy:literal
        example $example:literal)*) => {
        /// Every rule of comparing and judging, by code. The packager adds its own from HP060 on.
        pub const RULES: &[Rule] = &[$(Rule {
            code: $code,
            severity: Severity::$severity,
            title: $title,
            why: $why,
            remedy: $remedy,
            example: $example,
        }),*];
    };
}

rules! {
    "HP001" Refuse "32-bit x86 image"
        why "Patches are made for x64 and Arm64. An x86 image has other redirection code, other \
             relocations and no unwind tables."
        do "Build the x64 or Arm64 flavour."
        example "A DLL built for x86, machine 0x14c."
    "HP002" Refuse "hybrid image (CHPE)"
        why "An image with a CHPEMetadataPointer holds code for two machines: Arm64EC looks like \
             x64, Arm64X like Arm64, CHPE x86 like x86. Patch images with CHPE metadata are \
             refused by the systems that load them, and a record for code of one machine must not \
             be applied to code of the other."
        do "Build the component for one machine, without /arm64EC or /machine:arm64x."
        example "A DLL with machine 0x8664 whose load config has a CHPEMetadataPointer: Arm64EC, \
             not x64."
    "HP003" Refuse "not native x64 or Arm64 code"
        why "A managed image holds no machine code to redirect, and other machines have no \
             hotpatch format."
        do "Patch native x64 or Arm64 images only."
        example "A C# assembly: its COM descriptor directory is not empty."
    "HP004" Refuse "no PDB"
        why "Without symbols functions cannot be told apart, and a guess would be worse than a \
             refusal. This ends the run as an error, because there is nothing to report on."
        do "Give the PDB with --base-pdb or --fixed-pdb, or its folder with --symbols; link with \
            /DEBUG. An image that names no PDB may have DWARF instead: build with -g, and do not \
            strip."
        example "app.dll names app.pdb, and neither its folder nor a --symbols folder has that \
             file."
    "HP005" Refuse "PDB of another build"
        why "GUID and age in the PE name its PDB. A PDB of another build describes other \
             addresses. This ends the run as an error."
        do "Find the PDB that was written together with the PE."
        example "The PE names GUID 0F3A... age 1; the app.pdb beside it has another GUID, because \
             the product was built again."
    "HP006" Refuse "image rewritten after linking"
        why "OMAP streams in the PDB say that a tool moved code after linking, so the addresses of \
             its symbols are not those of the image. This ends the run as an error."
        do "Compare the images as the linker wrote them."
        example "A profile-guided rewriter moved functions after linking and left OMAP_TO_SRC in \
             the PDB."
    "HP008" Warn "base has no checksum"
        why "A running base is recognised by time stamp and checksum. A checksum of zero, which \
             linkers write unless told otherwise, is shared by every build, so only the time stamp \
             is left to tell them apart."
        do "Link the base with /RELEASE."
        example "CheckSum 0 in the optional header of the base."
    "HP009" Refuse "no base relocations"
        why "Base relocations tell addresses in data and code from numbers. Where they were left out, \
             two tables of addresses look the same or different for no reason, and a copy of one in a \
             patch would lead to where the fixed build had what the base has elsewhere."
        do "Link without /FIXED (MinGW: with --dynamicbase)."
        example "An executable linked with /FIXED: its Characteristics have \
                 IMAGE_FILE_RELOCS_STRIPPED."
    "HP010" Refuse "no padding before the entry"
        why "On x64 a redirected function jumps through six bytes before its entry. Whatever \
             stands there is overwritten, so it must be filler and nothing else: int3 or whole \
             no-operations that nothing reaches. Zeros prove nothing, as constants have them."
        do "Link the base with /FUNCTIONPADMIN:6 or more, and compile it with /hotpatch (clang: \
            -fms-hotpatch, with debug info). lld pads no code of link-time optimisation (-flto), whose \
            objects do not say that they were compiled so: add -fpatchable-function-entry=6,6, which \
            makes the room in the code."
        example "push rbp stands right behind the ret of the function before it, with five bytes \
             of int3 between instead of six."
    "HP011" Refuse "first instruction too short"
        why "The redirection replaces two bytes at the entry at once. If the first instruction has \
             one byte, a thread that is about to run the second would run half of a jump."
        do "Compile the base with /hotpatch (clang: -fms-hotpatch)."
        example "The function starts with push rbx (53). With /hotpatch it would start with a \
             two-byte form."
    "HP012" Refuse "branch back to the entry"
        why "A jump inside the function to its first bytes would enter the replacement in the \
             middle of its work, with registers that are not those of a call."
        do "Compile the base with /hotpatch (clang: -fms-hotpatch)."
        example "A loop over the whole function: dec ecx; jnz to the first instruction."
    "HP013" Refuse "entry looks redirected"
        why "An entry that starts with EB EE to EB FF is what a redirected one looks like; the \
             system takes it for one and refuses the patch."
        do "Compile the base with /hotpatch."
        example "A function that starts with a short jump backwards, EB EE."
    "HP014" Refuse "landing pad at the entry"
        why "ENDBR64 or BTI at the entry would be overwritten, and indirect branches to the \
             function would then fault where the processor checks them."
        do "Build the base without landing pads, or leave this function out."
        example "endbr64 (F3 0F 1E FA), or bti c, as the first instruction."
    "HP015" Refuse "XFG hash before the entry"
        why "With XFG the eight bytes before an entry hold a type hash; the redirection would \
             overwrite it."
        do "Build the base with /guard:cf without XFG."
        example "GuardFlags of the base has IMAGE_GUARD_XFG_ENABLED (0x800000)."
    "HP016" Refuse "function too short"
        why "The redirection would reach over the end of the function."
        do "Leave this function out, or patch its callers."
        example "An empty function on x64: one byte, ret."
    "HP017" Refuse "function in a discardable section"
        why "Pages of a discardable section may be gone once the image has started."
        do "Move the function to a section that stays."
        example "A driver's function in section INIT, changed."
    "HP018" Refuse "folded body"
        why "The linker folded several functions into one body. Redirecting it redirects them all, \
             and not all of them changed alike. So it is where a compiler made one function of two \
             with equal bodies (rustc does), and changed code hands out a new function with the body \
             that the changed one had."
        do "Link the base with /OPT:NOICF (/PROFILE does), and compile it without merging functions \
            (-Z merge-functions=disabled), or see that all of them may change."
        example "get_width and get_count are one body in the base; the fix changes get_count \
             alone."
    "HP019" Refuse "base too large for an Arm64 branch"
        why "An entry is redirected by one branch, which reaches 128 MB, to a table right behind \
             the image."
        do "Nothing but a smaller image helps."
        example "An Arm64 image of 130 MB."
    "HP020" Note "function gone"
        why "The fixed image has a function no more. Base code that still calls it keeps calling \
             it; that it went usually means that it was inlined or is no longer used."
        do "Nothing, unless it was meant to be unreachable."
        example "The fix merges a helper into its only caller; nothing of that name is left."
    "HP021" Refuse "signature changed"
        why "Unchanged callers in the base pass what the old signature says."
        do "Give the new signature to a new function, and keep the old one."
        example "int check(int size) becomes int check(size_t size): callers that did not change \
             pass 32 bits."
    "HP022" Refuse "exports changed"
        why "Other modules have bound to the base's exports, by name or by ordinal; a patch cannot \
             add, remove, move or renumber one."
        do "Leave the exports as they are."
        example "The fix adds a function with __declspec(dllexport), and every export behind it \
             gets another ordinal."
    "HP023" Refuse "new import"
        why "A patch reaches imports through the base's import table; what is not there would have \
             to be loaded while code runs."
        do "Use functions that the base imports, or resolve the new one at run time."
        example "The fix calls memchr, which the base does not import."
    "HP024" Note "import gone, or bound at another time"
        why "The fixed image imports a function no more, or by the delay-load table and no longer at \
             the start, or the other way round. The running base keeps its own import, which the patch \
             uses, and nothing is taken away."
        do "Nothing."
        example "strcmp was called in one place, which now compares by hand."
    "HP025" Refuse "thread-local storage changed"
        why "Code reaches a thread-local variable by its place in a block that each thread of the \
             base has already. Where variables are new, gone, elsewhere or start with another \
             value, code of the fixed image would read and write others. Code that uses variables \
             which stayed as they are can be patched."
        do "Leave the thread-local variables as they are, and put what is new elsewhere."
        example "A second __declspec(thread) variable, which moves the first."
    "HP026" Refuse "initialiser changed, or a function that runs once"
        why "Static initialisers and callbacks of the loader have run in the base. A patched one \
             would not run again, a new one not at all, and the effect would be missing. The same \
             holds for functions that nothing but initialisers call, for main, which has been \
             entered, and for what leads to it: all of that is certain, and refused. A warning is \
             what may mend a part, or all, or nothing, as the process stands: what runs again for \
             each thread or at the end, and the start of a C runtime that is linked in; what makes \
             a static local, which is done when its function is first entered, and a process may \
             have come that far or not; and a function that never returns, because a thread that is \
             in it stays in the base's code, and one that enters it later does not."
        do "Make the change where it takes effect later: where the value is read, and in what a loop \
            calls. Where there is only a warning, see whether the process has passed there."
        example "static Table table = build(5); becomes build(6): build has run with 5. Inside a \
                 function the same is a warning."
    "HP027" Refuse "vtable changed"
        why "Live objects point at the base's vtable. If its entries change number, place or \
             meaning, they keep the old ones, and patched code would call through the wrong entry."
        do "Leave virtual functions in place and change their bodies."
        example "virtual void close() is added in the middle of a class: every later function has \
             another place."
    "HP028" Refuse "functions or variables that could not be told apart"
        why "Several functions of one name stand on both sides and nothing tells which is which: \
             neither the object, nor what they do, nor who calls them. Any of them may have changed. \
             Of several variables of one name a patch that takes one for another would go on with \
             the wrong value, and one that has its own starts again with the first. So would a new \
             static variable that the base has without a name, which is what compilers leave of \
             variables that they merge or take apart."
        do "Give them names of their own, or build without the option that hides their difference; a \
            variable that the compiler should leave alone wants __attribute__((used))."
        example "Two files have a static function odd, and link-time optimisation makes one object \
             of them; both functions changed, and so did the only one that calls either."
    "HP029" Refuse "reference that is not understood"
        why "An operand points to something that could not be explained, so it cannot be said \
             whether it still means the same. What is not known to be equal is not reported equal. \
             Constants without a name begin and end where nobody knows: code that takes their address \
             may reach into what stands beside them and changed. And where code adds an index to an \
             address inside one table, it may count into the next one."
        do "Compile with a section for each datum (/Gw, -fdata-sections): then it is known where \
             constants begin and end. Report the case otherwise."
        example "Two functions each have a table of their own in one object, side by side. The second \
             one changed, and the function that reads the first one is refused."
    "HP030" Refuse "initial value of writable data changed"
        why "The running base keeps its own variables with the values they have, and where they are; \
             a new initial value has no effect, and what grew has no room to."
        do "Set the value in code that runs, or keep it. Data without a name that may be new gets a name \
            by __attribute__((used))."
        example "static int limit = 5; becomes 7: the running process has 5, or what it has set \
             since."
    "HP031" Refuse "layout of a type changed"
        why "Objects made by the base have the old layout, or hold old values of an enumeration, and \
             unchanged code keeps using them. Where no changed function is known to use the type, by \
             its parameters, variables, calls and data, the finding is a warning: a cast leaves no \
             record. So it is where it uses another type made by the same template, or one \
             that seems to have taken its place under another name, where a variable of it leads to \
             numbers of another size, where no record tells of types at all or of what \
             a pointer leads to, and where enumerators got other numbers that programs \
             keep in plain integers. A warning, too, are closures, lambdas and structures that are \
             declared in one changed function, where the symbols of both sides show that nothing \
             else works on them: no other function, variable or type has them or leads to them, \
             and so does no type descriptor, vtable or pointer. Calls from before the patch go on \
             with old code and old objects. What symbols do not show: the function may itself copy \
             such an object as bytes to where they outlive the call, or take some memory for one \
             by a cast to a reference, and find an old one there."
        do "Keep the type, and put what is new elsewhere. Of a type of one function make sure that \
            no bytes of it outlive a call."
        example "A field is added in the middle of a struct: objects that exist have no room for \
             it."
    "HP032" Note "global new or gone"
        why "A new writable variable lives in the patch. It starts with its initial value when the \
             patch is loaded, not when the process started, and what it holds is lost when the \
             patch is taken back or replaced by a newer one. One that is gone stays in the base, \
             and patched code leaves it alone. Where a new one takes the place of one that is gone, \
             by its name or in a function that changed, the finding is a warning: what the process \
             had in it is lost. So it is where a static variable is in another source or function, \
             and goes on with what the base has under that name."
        do "See that the code works with a variable that starts late and may start again, and that \
            variables of one name mean the same before and after."
        example "static int times_asked; is new, and counts from the moment the patch is loaded."
    "HP033" Refuse "changed constant reached by unchanged code"
        why "A table changed, and a writable pointer or an export leads to it, or code stores its \
             address. Code that goes that way keeps the base's table, as objects do that exist. \
             Where the address is only compared, or that of a structure or a table of functions is \
             handed on, or other constants lead there, the finding is a warning: somebody may keep \
             the address, and what keeps it is not equal to that of the copy in the patch. A constant \
             without a name counts as well where code stores its address, and for a warning where \
             code returns it, or hands on that of a table of functions: texts and the places in \
             sources that panics carry do not. Nor do constants that nothing leads to but functions \
             in which only numbers of lines changed, and which stay in the base with them."
        do "Change the code that reads the table instead; of a table of functions, the functions."
        example "static const int *chosen = table; and an entry of table changes: the base's \
             chosen leads to the base's table."
    "HP034" Warn "resources changed"
        why "Resources are read from the base image; a patch does not carry any. Texts, dialogs, \
             manifests and the like stay those of the base."
        do "Ship a full update if the resources matter."
        example "A string of the string table changed; the process loads the base's."
    "HP035" Note "version information changed"
        why "The running base keeps its version information: a program that asks for the version of \
             the file gets the base's, patched or not."
        do "Nothing. The patch names its base by time stamp and checksum, not by version."
        example "FILEVERSION 1,2,3,4 becomes 1,2,3,5."
    "HP036" Warn "waiver not used"
        why "The policy allows a finding that is not there: the code is another one, the name is \
             written differently, or the reason for it is gone. Or another waiver allows it already. A waiver that waits for something to \
             match may allow what nobody looked at."
        do "Take the waiver out of the policy, or write the name as the report has it."
        example "The policy allows HP030 for retry_limit, and the variable is called \
             retry_limit_ms."
    "HP037" Refuse "reached beside the entry"
        why "Redirecting an entry replaces what calls of it do. Code that did not change and enters \
             the function in the middle, or reads constants that stand in it, goes on with what the \
             base has; so does whoever has such an address from a table or an export. And what may \
             be constants by itself must not be written into."
        do "Change those who reach into the function as well, or move what they reach out of it."
        example "Hand-written assembly has a second name in the middle of a function, and the fix \
                 changes what follows it."
    "HP038" Refuse "list of the linker changed"
        why "Linkers gather the entries of a list from many objects: terminators of the C runtime, tests, \
             drivers. No code names an entry, so none changes when one is new, gone, changed or in \
             another place, and the running base keeps the list that it has."
        do "Enter it by code that runs, or leave the list as it is."
        example "A pointer to a function is put into the section .CRT$XTU: it would be called at the \
                 end of the process, and is not in the base's list."
    "HP039" Refuse "headers changed"
        why "What the headers say (mitigations, rights of sections, sizes of stack and heap, the entry \
             point) counted when the base was loaded. A patch has no say in it: where it is part of \
             the fix, the running base stays as it was."
        do "Link both sides with the same options, or ship a full update."
        example "The fixed image is linked with /GUARD:CF, and the base was not; or .text was \
                 writable and no longer is."
    "HP040" Warn "another compiler"
        why "The two sides were compiled by different compilers or versions. Most of what differs \
             is then the compiler's doing, and the patch is larger than the fix."
        do "Build both sides with the same tools."
        example "clang version 21.1.0 before, 22.1.0 after."
    "HP041" Refuse "constant became writable"
        why "The base has the constant in memory that cannot be written, and a patched function that \
             writes to it would end the process. Where no changed function is known to reach it, the \
             finding is a warning. So it is where a variable became constant: the process may hold \
             another value than the one that the compiler now takes for granted."
        do "Keep the constant, and let the changed code use a new variable."
        example "static const int limits[4] loses its const, and a function sets an entry of it."
    "HP042" Warn "callback replaced"
        why "Changed code handed out the address of a function, and does so no longer, or code that is \
             gone did so with a function or a vtable that is gone as well. Objects, threads \
             and tables of the running process may hold that address, and go on with that function. \
             Where the fix put another one in its place, it mends nothing for them. Several lambdas \
             that changed are taken to stand in the order in which they stood: where the function that \
             hands them out changed as well, it may have exchanged them."
        do "Change the function itself, and leave its name and where it is registered. See in the \
            source which lambda is which."
        example "connect() registers on_data_checked in place of on_data: connections that exist call \
             on_data."
    "HP043" Refuse "what an older patch brought is held"
        why "An older patch brought a function, a table or a variable that the base does not have, and \
             its code or data handed out the address (build --previous). The older image stays in the \
             process, and a patch redirects functions of the base alone: whoever holds the address goes \
             on with the older patch's. Where that has another content now and code of the older patch \
             stores the address, it is refused. Where the address was only handed on or compared, where \
             it is gone, where it is the same and reaches variables, of which each patch has its own \
             (HP032), or where code compares the address, which is another one in each patch, the \
             finding is a warning. Types that only the older patch brought, and values of enumerations, \
             are refused where they are otherwise now and changed code uses them: objects may be left \
             that code of the older patch made. Where none is known to, or a value is gone, the finding \
             is a warning."
        do "Leave what the older patch brought as it is, and make the fix in a function that the base \
            has. Make new callbacks so small that they only call a function of the base. Or restart."
        example "The first patch brings on_checked and registers it; the second one corrects it: \
             connections made in between call the first one's."
}
