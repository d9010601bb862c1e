//! What is decompressed may be anything: the answer is a page or an error, and nothing else.

use pageless_vmap::compress::{Algorithm, Compressor, DecompressError, PAGE, Page};
use proptest::prelude::*;

/// Text-like: long matches, short ones, and bytes that match nothing.
fn page_of(seed: u64) -> Page {
    let mut random = fastrand::Rng::with_seed(seed);
    let words: Vec<Vec<u8>> = (0..40)
        .map(|_| (0..random.usize(1..12)).map(|_| random.u8(..)).collect())
        .collect();
    let mut bytes = Vec::new();
    while bytes.len() < PAGE {
        match random.u8(..16) {
            0 => bytes.extend((0..random.usize(..300)).map(|_| random.u8(..))),
            1 => bytes.resize(bytes.len() + random.usize(..600), 0),
            _ => bytes.extend_from_slice(&words[random.usize(..words.len())]),
        }
    }
    bytes[..PAGE].try_into().unwrap()
}

fn small(algorithm: Algorithm, page: &Page) -> Vec<u8> {
    let mut into = [0; 2 * PAGE];
    let len = algorithm
        .compress(&mut algorithm.work(), page, &mut into)
        .unwrap();
    into[..len].to_vec()
}

fn whole(algorithm: Algorithm, bytes: &[u8]) -> Result<Page, DecompressError> {
    let mut page = [0x5A; PAGE];
    algorithm.decompress(bytes, &mut page).map(|()| page)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn random_bytes_are_a_page_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..PAGE + 100)) {
        for algorithm in Algorithm::ALL {
            let _ = whole(algorithm, &bytes);
        }
    }

    #[test]
    fn a_spoilt_stream_is_a_page_or_an_error(seed: u64, spoilt in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        for algorithm in Algorithm::ALL {
            let mut bytes = small(algorithm, &page_of(seed));
            for &(at, value) in &spoilt {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            let _ = whole(algorithm, &bytes);
        }
    }

    #[test]
    fn a_stream_cut_short_is_an_error(seed: u64, cut: usize) {
        for algorithm in Algorithm::ALL {
            let bytes = small(algorithm, &page_of(seed));
            prop_assert!(whole(algorithm, &bytes[..cut % bytes.len()]).is_err());
        }
    }

    #[test]
    fn whatever_the_page_it_comes_back(seed: u64) {
        let page = page_of(seed);
        for algorithm in Algorithm::ALL {
            prop_assert!(whole(algorithm, &small(algorithm, &page)) == Ok(page));
        }
    }
}

#[test]
fn a_stream_of_less_than_a_page_is_no_page() {
    // 21 bytes that become "hello, lzo world!".
    let hello = [
        34, 104, 101, 108, 108, 111, 44, 32, 108, 122, 111, 32, 119, 111, 114, 108, 100, 33, 17, 0,
        0,
    ];
    assert_eq!(
        whole(Algorithm::Lzo, &hello),
        Err(DecompressError::Short {
            algorithm: "lzo",
            bytes: 21,
            made: 17
        })
    );
    assert_eq!(
        whole(Algorithm::Lz4, b"\x50hello"),
        Err(DecompressError::Short {
            algorithm: "lz4",
            bytes: 6,
            made: 5
        })
    );
}

#[test]
fn a_stream_that_would_be_more_than_a_page_is_an_error() {
    // A match of 255 bytes for each byte of length.
    let mut lzo = vec![18, 7, 0x20];
    lzo.resize(200, 0);
    lzo.extend([1, 0, 0, 17, 0, 0]);
    let mut lz4 = vec![0x1F, 7, 1, 0];
    lz4.resize(200, 0xFF);
    lz4.push(0);
    for (algorithm, bytes) in [(Algorithm::Lzo, lzo), (Algorithm::Lz4, lz4)] {
        assert!(matches!(
            whole(algorithm, &bytes),
            Err(DecompressError::Malformed { .. })
        ));
    }
}

#[test]
fn nothing_at_all_is_an_error() {
    for algorithm in Algorithm::ALL {
        assert!(whole(algorithm, &[]).is_err());
    }
}

#[test]
fn work_that_another_compressor_made_is_replaced() {
    let page = page_of(1);
    let mut work = Algorithm::Lzo.work();
    let mut into = [0; 2 * PAGE];
    let len = Algorithm::Lz4
        .compress(&mut work, &page, &mut into)
        .unwrap();
    assert_eq!(whole(Algorithm::Lz4, &into[..len]), Ok(page));
}

#[test]
fn the_same_page_becomes_the_same_bytes_whatever_was_before() {
    for algorithm in Algorithm::ALL {
        let mut work = algorithm.work();
        for seed in 0..20 {
            let page = page_of(seed);
            let mut into = [0xEE; 2 * PAGE];
            let len = algorithm.compress(&mut work, &page, &mut into).unwrap();
            assert_eq!(into[..len], small(algorithm, &page), "{algorithm}");
        }
    }
}

#[test]
fn a_page_of_noise_gets_larger_and_comes_back() {
    let mut page = [0; PAGE];
    fastrand::Rng::with_seed(3).fill(&mut page);
    for algorithm in Algorithm::ALL {
        let bytes = small(algorithm, &page);
        assert!(bytes.len() > PAGE, "{algorithm}: {}", bytes.len());
        assert_eq!(whole(algorithm, &bytes), Ok(page));
    }
}
