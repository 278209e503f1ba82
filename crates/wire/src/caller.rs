/// Who sent a request, as its verified signature tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Twelve digits.
    pub account_id: String,
    /// From the credential scope: one daemon serves any region name.
    pub region: String,
    /// `aws`, `aws-cn`, `aws-us-gov`, …: follows from the region.
    pub partition: String,
    /// The access key that signed.
    pub access_key_id: String,
    /// The `x-amzn-requestid` of this request.
    pub request_id: String,
}

/// The partition a region name belongs to.
pub fn partition_of(region: &str) -> &'static str {
    const PREFIXES: [(&str, &str); 8] = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-isob-", "aws-iso-b"),
        ("us-isof-", "aws-iso-f"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-iso-", "aws-iso"),
        ("eusc-", "aws-eusc"),
        ("", "aws"),
    ];
    PREFIXES
        .iter()
        .find(|(prefix, _)| region.starts_with(prefix))
        .map_or("aws", |(_, partition)| partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_name_tells_its_partition() {
        for (region, partition) in [
            ("eu-west-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("home", "aws"),
        ] {
            assert_eq!(partition_of(region), partition, "{region}");
        }
    }
}
