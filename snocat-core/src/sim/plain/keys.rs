//! Keys that hide nothing: a packet stays as it is, and gets a checksum where the tag of a cipher would be.

use bytes::BytesMut;

use crate::quic::crypto::{CryptoError, HeaderKey, KeyPair, Keys, PacketKey};
use crate::sim::rng::mix;

const TAG: usize = 16;

/// The keys of one side, from what both sides know.
pub(super) fn keys(connecting: bool, secret: u64) -> Keys {
    Keys {
        header: KeyPair { local: Box::new(Unmasked), remote: Box::new(Unmasked) },
        packet: packet_keys(connecting, secret),
    }
}

pub(super) fn packet_keys(connecting: bool, secret: u64) -> KeyPair<Box<dyn PacketKey>> {
    let key =
        |connecting: bool| Box::new(Checksum(mix(secret ^ u64::from(connecting)))) as Box<dyn PacketKey>;
    KeyPair { local: key(connecting), remote: key(!connecting) }
}

struct Unmasked;

impl HeaderKey for Unmasked {
    fn decrypt(&self, _: usize, _: &mut [u8]) {}

    fn encrypt(&self, _: usize, _: &mut [u8]) {}

    fn sample_size(&self) -> usize {
        TAG
    }
}

struct Checksum(u64);

impl Checksum {
    fn tag(&self, packet: u64, header: &[u8], payload: &[u8]) -> [u8; TAG] {
        let mut sum = mix(self.0 ^ packet);
        for part in [header, payload] {
            let (words, rest) = part.as_chunks::<8>();
            for word in words {
                sum = (sum ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            }
            let mut last = [0; 8];
            last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            sum = mix(sum ^ u64::from_le_bytes(last) ^ (part.len() as u64) << 56);
        }
        (u128::from(sum) << 64 | u128::from(mix(sum ^ self.0))).to_le_bytes()
    }
}

impl PacketKey for Checksum {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let (header, rest) = buf.split_at_mut_checked(header_len).unwrap_or_default();
        if let Some((payload, tag)) = rest.split_last_chunk_mut::<TAG>() {
            *tag = self.tag(packet, header, payload);
        }
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        let (plain, tag) = payload.split_last_chunk::<TAG>().ok_or(CryptoError)?;
        if *tag != self.tag(packet, header, plain) {
            return Err(CryptoError);
        }
        payload.truncate(payload.len() - TAG);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        TAG
    }

    fn confidentiality_limit(&self) -> u64 {
        1 << 23
    }

    fn integrity_limit(&self) -> u64 {
        1 << 52
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Vec<u8> {
        (0..64).collect()
    }

    #[test]
    fn what_one_side_seals_the_other_opens_and_every_flipped_bit_is_caught() {
        let (ours, theirs) = (packet_keys(true, 5), packet_keys(false, 5));
        let mut sealed = packet();
        ours.local.encrypt(9, &mut sealed, 10);
        assert_eq!(sealed[..48], packet()[..48], "nothing is hidden");
        for bit in 0..64 * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut payload = BytesMut::from(&flipped[10..]);
            assert!(theirs.remote.decrypt(9, &flipped[..10], &mut payload).is_err(), "bit {bit}");
        }
        let mut payload = BytesMut::from(&sealed[10..]);
        assert!(theirs.remote.decrypt(9, &sealed[..10], &mut payload).is_ok());
        assert_eq!(payload, packet()[10..48]);
    }

    #[test]
    fn other_numbers_sides_and_secrets_do_not_open_it() {
        let mut sealed = packet();
        packet_keys(true, 5).local.encrypt(9, &mut sealed, 10);
        for (number, key) in
            [(8, packet_keys(false, 5)), (9, packet_keys(true, 5)), (9, packet_keys(false, 6))]
        {
            let mut payload = BytesMut::from(&sealed[10..]);
            assert!(key.remote.decrypt(number, &sealed[..10], &mut payload).is_err());
        }
    }
}
