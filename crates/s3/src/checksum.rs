//! Checksums that travel with bodies: verified before the body becomes an object.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use futures::{Stream, StreamExt};
use hearth_storage::objects::{Checksum, Part, Staged};
use s3s::{
    S3Result, TrailingHeaders,
    checksum::ChecksumHasher,
    crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256},
    dto, s3_error,
};

/// Takes the checksum members out of a request.
macro_rules! told {
    ($input:expr) => {
        s3s::dto::Checksum {
            checksum_crc32: $input.checksum_crc32.take(),
            checksum_crc32c: $input.checksum_crc32c.take(),
            checksum_crc64nvme: $input.checksum_crc64nvme.take(),
            checksum_sha1: $input.checksum_sha1.take(),
            checksum_sha256: $input.checksum_sha256.take(),
            checksum_type: None,
        }
    };
}
pub(crate) use told;

/// Puts a checksum into the members of a response that has no type member.
macro_rules! tell_value {
    ($output:expr, $checksum:expr) => {{
        let checksum: s3s::dto::Checksum = $checksum;
        $output.checksum_crc32 = checksum.checksum_crc32;
        $output.checksum_crc32c = checksum.checksum_crc32c;
        $output.checksum_crc64nvme = checksum.checksum_crc64nvme;
        $output.checksum_sha1 = checksum.checksum_sha1;
        $output.checksum_sha256 = checksum.checksum_sha256;
        checksum.checksum_type
    }};
}
pub(crate) use tell_value;

/// Puts a checksum and its type into a response.
macro_rules! tell {
    ($output:expr, $checksum:expr) => {
        $output.checksum_type = crate::checksum::tell_value!($output, $checksum)
    };
}
pub(crate) use tell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    /// From `CRC32` or a header's `x-amz-checksum-crc32`.
    pub(crate) fn parse(name: &str) -> S3Result<Self> {
        match name
            .trim()
            .to_ascii_lowercase()
            .trim_start_matches("x-amz-checksum-")
        {
            "crc32" => Ok(Self::Crc32),
            "crc32c" => Ok(Self::Crc32c),
            "crc64nvme" => Ok(Self::Crc64Nvme),
            "sha1" => Ok(Self::Sha1),
            "sha256" => Ok(Self::Sha256),
            _ => Err(s3_error!(
                InvalidRequest,
                "Checksum algorithm provided is unsupported."
            )),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The CRC, its width in bytes; `None` for a hash.
    fn crc(self) -> Option<(CrcAlgorithm, usize)> {
        match self {
            Self::Crc32 => Some((CrcAlgorithm::Crc32IsoHdlc, 4)),
            Self::Crc32c => Some((CrcAlgorithm::Crc32Iscsi, 4)),
            Self::Crc64Nvme => Some((CrcAlgorithm::Crc64Nvme, 8)),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    fn hasher(self) -> ChecksumHasher {
        let mut hasher = ChecksumHasher::default();
        match self {
            Self::Crc32 => hasher.crc32 = Some(Crc32::new()),
            Self::Crc32c => hasher.crc32c = Some(Crc32c::new()),
            Self::Crc64Nvme => hasher.crc64nvme = Some(Crc64Nvme::new()),
            Self::Sha1 => hasher.sha1 = Some(Sha1::new()),
            Self::Sha256 => hasher.sha256 = Some(Sha256::new()),
        }
        hasher
    }
}

/// The one checksum a request tells, if any.
pub(crate) fn single(told: dto::Checksum) -> S3Result<Option<(Algorithm, String)>> {
    let mut all = [
        (Algorithm::Crc32, told.checksum_crc32),
        (Algorithm::Crc32c, told.checksum_crc32c),
        (Algorithm::Crc64Nvme, told.checksum_crc64nvme),
        (Algorithm::Sha1, told.checksum_sha1),
        (Algorithm::Sha256, told.checksum_sha256),
    ]
    .into_iter()
    .filter_map(|(algorithm, value)| Some((algorithm, value?)));
    let first = all.next();
    if all.next().is_some() {
        return Err(s3_error!(
            InvalidRequest,
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        ));
    }
    Ok(first)
}

/// A checksum in the members of the protocol.
pub(crate) fn carrier(checksum: &Checksum) -> dto::Checksum {
    let mut told = dto::Checksum::default();
    let value = Some(checksum.value.clone());
    match Algorithm::parse(&checksum.algorithm) {
        Ok(Algorithm::Crc32) => told.checksum_crc32 = value,
        Ok(Algorithm::Crc32c) => told.checksum_crc32c = value,
        Ok(Algorithm::Crc64Nvme) => told.checksum_crc64nvme = value,
        Ok(Algorithm::Sha1) => told.checksum_sha1 = value,
        Ok(Algorithm::Sha256) => told.checksum_sha256 = value,
        Err(_) => {}
    }
    let kind = if checksum.composite {
        dto::ChecksumType::COMPOSITE
    } else {
        dto::ChecksumType::FULL_OBJECT
    };
    told.checksum_type = Some(dto::ChecksumType::from_static(kind));
    told
}

/// What a body must prove to be.
pub(crate) struct Claim {
    algorithm: Algorithm,
    value: Option<String>,
    trailers: Option<TrailingHeaders>,
    md5: Option<String>,
    hasher: ChecksumHasher,
}

impl Claim {
    /// From a request's checksum members, its trailer's announcement and its Content-MD5. Where the
    /// request names no algorithm, `default` is computed, as S3 does.
    pub(crate) fn new(
        told: dto::Checksum,
        headers: &http::HeaderMap,
        trailers: Option<TrailingHeaders>,
        named: Option<&dto::ChecksumAlgorithm>,
        md5: Option<String>,
        default: Algorithm,
    ) -> S3Result<Self> {
        let told = single(told)?;
        let announced = headers.get("x-amz-trailer").and_then(|value| value.to_str().ok());
        let announced =
            announced.filter(|name| name.trim().to_ascii_lowercase().starts_with("x-amz-checksum-"));
        let algorithm = match (&told, announced, named) {
            (Some((algorithm, _)), ..) => *algorithm,
            (None, Some(name), _) => Algorithm::parse(name)?,
            (None, None, Some(name)) => Algorithm::parse(name.as_str())?,
            (None, None, None) => default,
        };
        let trailers = announced.and(trailers);
        Ok(Self {
            algorithm,
            value: told.map(|(_, value)| value),
            trailers,
            md5,
            hasher: algorithm.hasher(),
        })
    }

    /// The body, read by the claim on its way.
    pub(crate) fn watch<S, E>(&mut self, body: S) -> impl Stream<Item = Result<Bytes, E>>
    where
        S: Stream<Item = Result<Bytes, E>>,
    {
        body.inspect(|chunk| {
            if let Ok(chunk) = chunk {
                self.hasher.update(chunk);
            }
        })
    }

    /// Compares the claim with what came; the checksum, if all is well.
    pub(crate) fn verify(self, staged: &Staged) -> S3Result<Checksum> {
        if let Some(md5) = &self.md5 {
            let md5 = BASE64
                .decode(md5)
                .map_err(|_| s3_error!(InvalidDigest, "The Content-MD5 you specified was invalid."))?;
            if md5 != staged.md5() {
                return Err(s3_error!(
                    BadDigest,
                    "The Content-MD5 you specified did not match what we received."
                ));
            }
        }
        let header = format!("x-amz-checksum-{}", self.algorithm.name().to_ascii_lowercase());
        let trailing = self.trailers.map(|trailers| {
            let found = trailers
                .read(|map| map.get(&header).and_then(|v| v.to_str().ok()).map(str::to_owned))
                .flatten();
            found.ok_or_else(|| {
                s3_error!(
                    InvalidRequest,
                    "The request's trailer does not contain the checksum it announced."
                )
            })
        });
        let claimed = match trailing {
            Some(value) => Some(value?),
            None => self.value,
        };
        let computed = single(self.hasher.finalize())?
            .map(|(_, value)| value)
            .unwrap_or_default();
        if claimed.is_some_and(|claimed| claimed != computed) {
            let name = self.algorithm.name();
            return Err(s3_error!(
                BadDigest,
                "The {} you specified did not match the calculated checksum.",
                name
            ));
        }
        Ok(Checksum {
            algorithm: self.algorithm.name().to_owned(),
            value: computed,
            composite: false,
        })
    }
}

/// The checksum of an object of these parts, if each of them came with one of the same algorithm.
pub(crate) fn of_parts(announced: &Checksum, parts: &[&Part]) -> Option<Checksum> {
    let algorithm = Algorithm::parse(&announced.algorithm).ok()?;
    let mut digests = Vec::new();
    for part in parts {
        let checksum = part
            .checksum
            .as_ref()
            .filter(|checksum| checksum.algorithm == announced.algorithm)?;
        digests.push((BASE64.decode(&checksum.value).ok()?, part.size));
    }
    let value = if announced.composite {
        let mut hasher = algorithm.hasher();
        digests.iter().for_each(|(digest, _)| hasher.update(digest));
        let (_, value) = single(hasher.finalize()).ok()??;
        format!("{value}-{}", parts.len())
    } else {
        let (crc, width) = algorithm.crc()?;
        let number = |digest: &[u8]| {
            digest
                .iter()
                .fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte))
        };
        let (first, rest) = digests.split_first()?;
        let whole = rest.iter().fold(number(&first.0), |sum, (digest, size)| {
            crc_fast::checksum_combine(crc, sum, number(digest), *size)
        });
        BASE64.encode(&whole.to_be_bytes()[8 - width..])
    };
    Some(Checksum {
        value,
        ..announced.clone()
    })
}

/// What CreateMultipartUpload announces of the object's checksum.
pub(crate) fn announced(
    algorithm: Option<&dto::ChecksumAlgorithm>,
    kind: Option<&dto::ChecksumType>,
) -> S3Result<Option<Checksum>> {
    let Some(algorithm) = algorithm else {
        return Ok(None);
    };
    let algorithm = Algorithm::parse(algorithm.as_str())?;
    let composite = match kind.map(dto::ChecksumType::as_str) {
        Some(dto::ChecksumType::COMPOSITE) => true,
        Some(dto::ChecksumType::FULL_OBJECT) => false,
        Some(_) => {
            return Err(s3_error!(
                InvalidRequest,
                "Value for x-amz-checksum-type header is invalid."
            ));
        }
        None => algorithm != Algorithm::Crc64Nvme,
    };
    if composite == (algorithm == Algorithm::Crc64Nvme) && composite
        || !composite && algorithm.crc().is_none()
    {
        return Err(s3_error!(
            InvalidRequest,
            "The checksum type cannot be used with the checksum algorithm."
        ));
    }
    Ok(Some(Checksum {
        algorithm: algorithm.name().to_owned(),
        value: String::new(),
        composite,
    }))
}
