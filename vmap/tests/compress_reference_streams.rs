//! Streams that the compressors' C libraries made (liblzo2 2.10's `lzo1x_1_compress`, liblz4 1.9.4's `LZ4_compress_default`) of a page with
//! short and long matches, literals and runs: they are what a kernel would have stored.

use pageless_vmap::compress::{Algorithm, Compressor, PAGE, Page};

const LZO: &str = "0774686520706167652c2028240006616e6420616761696e274d003b27240020279c00003100010203\
    0405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233343536\
    3738393a3b3c3d3e3f000000200000360800077461696c206f66206974283c0c282400200000000000000000000000003f650c\
    ff204b00000effffffffffffffffffffffffffffffffff110000";

const LZ4: &str = "a674686520706167652c200a0095616e6420616761696e1400153b0a000f280035ff32000102030405\
    060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738\
    393a3b3c3d3e3f000100ffff46a67461696c206f662069741003060a000f1a03ffffffffffffffffffffffff4d1fff01006550\
    ffffffffff";

fn page() -> Page {
    let mut part = b"the page, the page, and again the page; ".repeat(3);
    part.extend(0..64);
    part.resize(part.len() + 600, 0);
    part.extend(b"tail of it");
    let mut bytes = part.repeat(5);
    bytes.resize(PAGE, 0xFF);
    bytes.try_into().unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let digits = digits.map(|pair| str::from_utf8(pair).unwrap());
    digits
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

#[test]
fn what_the_c_libraries_made_is_read() {
    for (algorithm, hex) in [(Algorithm::Lzo, LZO), (Algorithm::Lz4, LZ4)] {
        let mut read = [0xAA; PAGE];
        algorithm.decompress(&bytes(hex), &mut read).unwrap();
        assert!(read == page(), "{algorithm}");
    }
}

#[test]
fn what_is_made_here_is_no_longer_but_by_a_few_bytes() {
    for (algorithm, hex) in [(Algorithm::Lzo, LZO), (Algorithm::Lz4, LZ4)] {
        let mut room = [0; 2 * PAGE];
        let len = algorithm.compress(&mut algorithm.work(), &page(), &mut room);
        let theirs = bytes(hex).len();
        assert!(len.unwrap() <= theirs + 8, "{algorithm}: {len:?}, {theirs}");
    }
}
