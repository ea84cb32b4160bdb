//! Just enough of classic BPF to run a seccomp filter: what kernel/seccomp.c lets through its checker, by
//! Documentation/networking/filter.rst.

use bpi_policies::Call;

const LD_W_ABS: u16 = 0x20;
const ALU_AND_K: u16 = 0x54;
const JMP_JA: u16 = 0x05;
const JMP_JEQ_K: u16 = 0x15;
const JMP_JGT_K: u16 = 0x25;
const JMP_JGE_K: u16 = 0x35;
const JMP_JSET_K: u16 = 0x45;
const RET_K: u16 = 0x06;

/// The filter's answer to `call`, a `SECCOMP_RET_*` value.
pub fn run(program: &[u8], call: &Call) -> u32 {
    let data = seccomp_data(call);
    let (mut pc, mut accumulator) = (0_usize, 0_u32);
    loop {
        let at: [u8; 8] = program[pc * 8..pc * 8 + 8].try_into().expect("eight bytes");
        let code = u16::from_ne_bytes([at[0], at[1]]);
        let (taken, not_taken) = (usize::from(at[2]), usize::from(at[3]));
        let k = u32::from_ne_bytes([at[4], at[5], at[6], at[7]]);
        pc += 1;
        let holds = match code {
            LD_W_ABS => {
                let offset = k as usize;
                accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().expect("four bytes"));
                continue;
            }
            ALU_AND_K => {
                accumulator &= k;
                continue;
            }
            JMP_JA => {
                pc += k as usize;
                continue;
            }
            RET_K => return k,
            JMP_JEQ_K => accumulator == k,
            JMP_JGT_K => accumulator > k,
            JMP_JGE_K => accumulator >= k,
            JMP_JSET_K => accumulator & k != 0,
            other => panic!("instruction {other:#x} at {} is not one libseccomp makes", pc - 1),
        };
        pc += if holds { taken } else { not_taken };
    }
}

/// `struct seccomp_data`: nr, arch, instruction pointer, six arguments.
fn seccomp_data(call: &Call) -> [u8; 64] {
    let mut data = [0; 64];
    data[..4].copy_from_slice(&call.nr.to_ne_bytes());
    data[4..8].copy_from_slice(&call.arch.to_ne_bytes());
    for (place, arg) in data[16..].chunks_exact_mut(8).zip(call.args) {
        place.copy_from_slice(&arg.to_ne_bytes());
    }
    data
}
