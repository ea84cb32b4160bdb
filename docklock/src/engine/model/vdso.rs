//! What to write over the vDSO, so that its functions ask the kernel and the cage answers.
//!
//! The kernel maps a small ELF image into each program (vdso(7)); its clock functions read host time without a system call. At each exec the engine
//! reads the image, and writes over each exported function: those that have a system call of the same arguments become that call,
//! `mov eax, nr; syscall; ret` (rcx and r11 are the caller's to save anyway), and every other becomes `mov eax, -ENOSYS; ret`, so that a function
//! of a newer kernel is closed instead of open. getrandom is of the second kind: called with `opaque_len = ~0` it must fill in parameters, which the
//! system call would not do, and libraries fall back to the call when it is missing.
//!
//! The image is read as a stranger's: each offset is checked, loops are bounded by the image, and an image that makes no sense is an error.
//! Absent on purpose: the data pages beside the image (`[vvar]`); the program is made to unmap them (`engine::vvar`).

use std::collections::BTreeMap;

/// Images larger than this are refused; Linux 6.x has two to four pages.
pub const IMAGE_BYTES_MAX: usize = 1 << 16;
/// Symbols looked at, at most: an image of [`IMAGE_BYTES_MAX`] holds no more.
const SYMBOLS_MAX: usize = IMAGE_BYTES_MAX / SYMBOL_BYTES;

/// elf(5): sizes of the 64-bit structures.
const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
const DYNAMIC_BYTES: usize = 16;
const SYMBOL_BYTES: usize = 24;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PF_X: u32 = 1;
const DT_NULL: u64 = 0;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const STT_FUNC: u8 = 2;

/// `mov eax, imm32; syscall; ret`.
const CALL: [u8; 8] = [0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3];
/// `mov eax, imm32; ret`.
const ANSWER: [u8; 6] = [0xb8, 0, 0, 0, 0, 0xc3];
const ENOSYS: i32 = 38;

/// Why an image cannot be patched. The engine then refuses the exec, or hides the vDSO from the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VdsoError {
    /// Larger than [`IMAGE_BYTES_MAX`].
    #[error("an image of {bytes} bytes is larger than the {IMAGE_BYTES_MAX} that a vDSO may have")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not a 64-bit little-endian ELF file for x86-64.
    #[error("the image is not a 64-bit ELF file for x86-64")]
    NotElf,
    /// A structure does not lie within the image.
    #[error("the {what} at byte {offset} does not lie within the image of {bytes} bytes")]
    Outside {
        /// Which structure.
        what: &'static str,
        /// Where it would begin.
        offset: u64,
        /// Size of the image.
        bytes: usize,
    },
    /// A table that is needed is missing.
    #[error("the image has no {what}")]
    Missing {
        /// Which table.
        what: &'static str,
    },
    /// A function is not in an executable segment, or too small for the code that would replace it.
    #[error("the function {name} of {size} bytes at byte {offset} cannot be written over")]
    Function {
        /// Its name.
        name: String,
        /// Where it begins.
        offset: u64,
        /// Its size.
        size: u64,
    },
    /// Two functions share code that must do different things.
    #[error("the function {name} at byte {offset} overlaps another")]
    Overlap {
        /// Its name.
        name: String,
        /// Where it begins.
        offset: u64,
    },
}

/// Bytes to write at an offset from the start of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Where, from the start of the image.
    pub offset: usize,
    /// What.
    pub bytes: Vec<u8>,
}

/// What to write over a vDSO `image`: one patch for each exported function, ascending, none overlapping another.
///
/// # Errors
/// When the image is no vDSO that can be closed whole.
pub fn patches(image: &[u8]) -> Result<Vec<Patch>, VdsoError> {
    let image = Image::parse(image)?;
    let mut written: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for index in 1..image.symbols {
        let Some(function) = image.function(index)? else { continue };
        let code = replacement(&function.name);
        let fits = u64::try_from(code.len()).is_ok_and(|length| length <= function.size)
            && image.is_code(function.offset, function.size);
        if !fits {
            return Err(VdsoError::Function { name: function.name, offset: function.offset, size: function.size });
        }
        match written.get(&function.offset) {
            // __vdso_time and its weak alias time.
            Some(known) if *known == code => continue,
            Some(_) => return Err(VdsoError::Overlap { name: function.name, offset: function.offset }),
            None => {}
        }
        let end = function.offset + code.len() as u64;
        let before =
            written.range(..function.offset).next_back().map_or(0, |(offset, code)| offset + code.len() as u64);
        let after = written.range(function.offset..).next().map_or(u64::MAX, |(offset, _)| *offset);
        if before > function.offset || after < end {
            return Err(VdsoError::Overlap { name: function.name, offset: function.offset });
        }
        written.insert(function.offset, code);
    }
    if written.is_empty() {
        return Err(VdsoError::Missing { what: "function" });
    }
    // `is_code` has shown that each offset lies within the image.
    Ok(written
        .into_iter()
        .filter_map(|(offset, bytes)| Some(Patch { offset: usize::try_from(offset).ok()?, bytes }))
        .collect())
}

/// Numbers of arch/x86/entry/syscalls/syscall_64.tbl.
fn replacement(name: &str) -> Vec<u8> {
    let number: i32 = match name.strip_prefix("__vdso_").unwrap_or(name) {
        "clock_gettime" => 228,
        "clock_getres" => 229,
        "gettimeofday" => 96,
        "time" => 201,
        "getcpu" => 309,
        _ => {
            let mut code = ANSWER.to_vec();
            code[1..5].copy_from_slice(&(-ENOSYS).to_le_bytes());
            return code;
        }
    };
    let mut code = CALL.to_vec();
    code[1..5].copy_from_slice(&number.to_le_bytes());
    code
}

struct Function {
    name: String,
    offset: u64,
    size: u64,
}

/// An image whose tables have been found; what they say is still a stranger's.
struct Image<'a> {
    bytes: &'a [u8],
    /// Address minus offset: 0 in every vDSO, but the file says so itself.
    bias: u64,
    /// (offset, size) of the executable segments.
    code: Vec<(u64, u64)>,
    names: u64,
    table: u64,
    symbols: usize,
}

impl<'a> Image<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, VdsoError> {
        if bytes.len() > IMAGE_BYTES_MAX {
            return Err(VdsoError::TooLarge { bytes: bytes.len() });
        }
        let header = slice(bytes, "ELF header", 0, HEADER_BYTES).map_err(|_| VdsoError::NotElf)?;
        // ELFCLASS64, ELFDATA2LSB, ET_DYN, EM_X86_64, e_phentsize.
        let is_vdso = header.starts_with(b"\x7fELF\x02\x01") && u16_at(header, 16) == 3 && u16_at(header, 18) == 62;
        if !is_vdso || usize::from(u16_at(header, 54)) != SEGMENT_BYTES {
            return Err(VdsoError::NotElf);
        }
        let mut image = Self { bytes, bias: 0, code: Vec::new(), names: 0, table: 0, symbols: 0 };
        let (mut dynamic, mut loaded) = (None, false);
        for index in 0..usize::from(u16_at(header, 56)) {
            let offset = u64_at(header, 32).saturating_add((index * SEGMENT_BYTES) as u64);
            let segment = slice(bytes, "program header", offset, SEGMENT_BYTES)?;
            let (kind, flags, offset, address, size) =
                (u32_at(segment, 0), u32_at(segment, 4), u64_at(segment, 8), u64_at(segment, 16), u64_at(segment, 32));
            match kind {
                PT_LOAD => {
                    if !loaded {
                        image.bias = address.wrapping_sub(offset);
                        loaded = true;
                    }
                    if flags & PF_X != 0 {
                        image.code.push((offset, size));
                    }
                }
                PT_DYNAMIC => dynamic = Some((offset, size)),
                _ => {}
            }
        }
        let (offset, size) = dynamic.ok_or(VdsoError::Missing { what: "dynamic segment" })?;
        image.read_dynamic(offset, size)?;
        Ok(image)
    }

    fn read_dynamic(&mut self, offset: u64, size: u64) -> Result<(), VdsoError> {
        let (mut names, mut table, mut hash, mut gnu_hash) = (None, None, None, None);
        let entries = usize::try_from(size).unwrap_or(usize::MAX).min(self.bytes.len()) / DYNAMIC_BYTES;
        for index in 0..entries {
            let at = offset.saturating_add((index * DYNAMIC_BYTES) as u64);
            let entry = slice(self.bytes, "dynamic entry", at, DYNAMIC_BYTES)?;
            let value = u64_at(entry, 8).wrapping_sub(self.bias);
            match u64_at(entry, 0) {
                DT_NULL => break,
                DT_STRTAB => names = Some(value),
                DT_SYMTAB => table = Some(value),
                DT_HASH => hash = Some(value),
                DT_GNU_HASH => gnu_hash = Some(value),
                _ => {}
            }
        }
        self.names = names.ok_or(VdsoError::Missing { what: "string table" })?;
        self.table = table.ok_or(VdsoError::Missing { what: "symbol table" })?;
        self.symbols = match (hash, gnu_hash) {
            // The second word of a DT_HASH table is the number of symbols.
            (Some(hash), _) => u32_at(slice(self.bytes, "hash table", hash, 8)?, 4) as usize,
            (None, Some(hash)) => self.count_by_gnu_hash(hash)?,
            (None, None) => return Err(VdsoError::Missing { what: "hash table" }),
        };
        if self.symbols > SYMBOLS_MAX {
            let offset = self.table;
            return Err(VdsoError::Outside { what: "symbol table", offset, bytes: self.bytes.len() });
        }
        Ok(())
    }

    /// The end of the longest chain: the highest index in a bucket, and on from there to a hash whose lowest bit is set.
    fn count_by_gnu_hash(&self, at: u64) -> Result<usize, VdsoError> {
        let header = slice(self.bytes, "hash table", at, 16)?;
        let (buckets, first, bloom) = (u32_at(header, 0) as usize, u32_at(header, 4), u32_at(header, 8));
        let at = at.saturating_add(16).saturating_add(u64::from(bloom) * 8);
        let table = slice(self.bytes, "hash table", at, buckets.saturating_mul(4))?;
        let last = table.chunks_exact(4).map(|bucket| u32_at(bucket, 0)).max().unwrap_or(0);
        if last < first {
            return Ok(first as usize);
        }
        let chains = at.saturating_add(table.len() as u64);
        for index in last..last.saturating_add(SYMBOLS_MAX as u32) {
            let link = slice(self.bytes, "hash chain", chains.saturating_add(u64::from(index - first) * 4), 4)?;
            if u32_at(link, 0) & 1 == 1 {
                return Ok(index as usize + 1);
            }
        }
        Err(VdsoError::Outside { what: "hash chain", offset: chains, bytes: self.bytes.len() })
    }

    /// The symbol, if it is a function that the image defines.
    fn function(&self, index: usize) -> Result<Option<Function>, VdsoError> {
        let at = self.table.saturating_add((index * SYMBOL_BYTES) as u64);
        let symbol = slice(self.bytes, "symbol", at, SYMBOL_BYTES)?;
        if symbol[4] & 15 != STT_FUNC || u16_at(symbol, 6) == 0 {
            return Ok(None);
        }
        let at = self.names.saturating_add(u64::from(u32_at(symbol, 0)));
        let outside = VdsoError::Outside { what: "name", offset: at, bytes: self.bytes.len() };
        let rest = usize::try_from(at).ok().and_then(|at| self.bytes.get(at..)).ok_or_else(|| outside.clone())?;
        let end = rest.iter().position(|byte| *byte == 0).ok_or(outside)?;
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        Ok(Some(Function { name, offset: u64_at(symbol, 8).wrapping_sub(self.bias), size: u64_at(symbol, 16) }))
    }

    fn is_code(&self, offset: u64, size: u64) -> bool {
        let within = |start: u64, length: u64| {
            offset >= start
                && offset
                    .checked_add(size)
                    .is_some_and(|end| start.checked_add(length).is_some_and(|limit| end <= limit))
        };
        within(0, self.bytes.len() as u64) && self.code.iter().any(|(start, length)| within(*start, *length))
    }
}

fn slice<'a>(bytes: &'a [u8], what: &'static str, offset: u64, length: usize) -> Result<&'a [u8], VdsoError> {
    usize::try_from(offset)
        .ok()
        .and_then(|start| bytes.get(start..start.checked_add(length)?))
        .ok_or(VdsoError::Outside { what, offset, bytes: bytes.len() })
}

// Offsets within a structure whose size `slice` has checked.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

#[cfg(test)]
mod tests;
