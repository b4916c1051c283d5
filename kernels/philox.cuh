// Counter-based random numbers, the same as crates/cpu/src/rng.rs: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3", SC 2011).
#pragma once

// Four independent words for one counter.
static __device__ void philox(const unsigned (&key)[2], unsigned (&counter)[4]) {
    unsigned k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; ++round) {
        const unsigned low0 = 0xD2511F53u * counter[0], high0 = __umulhi(0xD2511F53u, counter[0]);
        const unsigned low2 = 0xCD9E8D57u * counter[2], high2 = __umulhi(0xCD9E8D57u, counter[2]);
        counter[0] = high2 ^ counter[1] ^ k0;
        counter[1] = low2;
        counter[2] = high0 ^ counter[3] ^ k1;
        counter[3] = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}
