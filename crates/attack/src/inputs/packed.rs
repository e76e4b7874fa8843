//! Archives whose compression is the attack.

use std::io::Write;

use portlayer::archive::{Compression, Encoder, TarBuilder};

fn new() -> TarBuilder {
    TarBuilder::new()
}

/// Bombs, cuts and damage in every compression.
pub(super) fn all(add: &mut impl FnMut(String, Vec<u8>)) {
    let compressions = [
        ("gzip", Compression::Gzip),
        ("bzip2", Compression::Bzip2),
        ("xz", Compression::Xz),
        ("zstd", Compression::Zstd),
    ];
    let plain = new().file("a", 0o644, &[7; 3000]).finish();
    let bomb = new().file("zeros", 0o644, &vec![0; 12 << 20]).finish();
    for (name, compression) in compressions {
        let packed = pack(&plain, compression);
        add(format!("{name} bomb"), pack(&bomb, compression));
        add(
            format!("{name} in {name}"),
            pack(&pack(&plain, compression), compression),
        );
        add(
            format!("{name} cut in its head"),
            packed[..7.min(packed.len())].to_vec(),
        );
        add(
            format!("{name} cut in the middle"),
            packed[..packed.len() / 2].to_vec(),
        );
        add(
            format!("{name} without its end"),
            packed[..packed.len() - 3].to_vec(),
        );
        add(
            format!("{name} and rubbish"),
            [packed.as_slice(), b"rubbish after the end"].concat(),
        );
        add(
            format!("{name} and zeros"),
            [packed.as_slice(), &[0; 4096]].concat(),
        );
        let more = pack(
            &new().file("../pl-escape", 0o644, b"x").finish(),
            compression,
        );
        add(
            format!("{name} with a second archive"),
            [packed.clone(), more].concat(),
        );
        for at in [4, 12, packed.len() / 2, packed.len() - 6] {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x41;
            add(format!("{name} damaged at {at}"), damaged);
        }
    }
    // An xz header that asks for 4 GiB of memory (dictionary property 40), its sum made right.
    let mut greedy = pack(&plain, Compression::Xz);
    if greedy.len() > 24 {
        greedy[16] = 40;
        add("xz that asks for 4 GiB".to_owned(), greedy);
    }
    // A zstd window of 2 GiB, and a skippable frame of 4 GiB.
    add(
        "zstd window of 2 GiB".to_owned(),
        vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0, 0],
    );
    add(
        "zstd skippable frame of 4 GiB".to_owned(),
        vec![0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 0],
    );
    // An archive that is its own member, as quines are, two levels deep.
    let quine = (0..40).fold(plain, |inner, _| {
        pack(
            &new().file("q.tar.gz", 0o644, &inner).finish(),
            Compression::Gzip,
        )
    });
    add("archive in an archive, forty times".to_owned(), quine);
}

fn pack(bytes: &[u8], compression: Compression) -> Vec<u8> {
    Encoder::new(Vec::new(), compression)
        .and_then(|mut encoder| encoder.write_all(bytes).and_then(|()| encoder.finish()))
        .expect("a Vec takes every write")
}
