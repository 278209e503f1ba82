//! How much a guest may send and receive: a token bucket (`tbf`) at each of its namespace's links.

use futures::StreamExt;
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    Handle,
    packet_core::{
        DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcMessage, TcOption},
    },
};
use tokio::runtime;

use crate::{NetworkError, build::netlink, error::While, rules::VETH, tap::TAP};

/// What may wait at a link: as much as passes in a tenth of a second, within these bounds.
const QUEUE_BYTES: std::ops::RangeInclusive<u64> = 256 << 10..=16 << 20;
/// `TC_LINKLAYER_ETHERNET` of linux/pkt_sched.h.
const ETHERNET: u8 = 1;
/// `TCA_TBF_PARMS`, `TCA_TBF_RATE64` and `TCA_TBF_BURST` there.
const PARAMETERS: u16 = 1;
const RATE: u16 = 4;
const BURST: u16 = 6;

/// Holds the guest of the calling thread's namespace to this many bytes a second to it, and as many from it to the world,
/// after a burst of one second's worth each.
pub(crate) fn limit(bytes_per_second: u64) -> Result<(), NetworkError> {
    shape_links(&[TAP, VETH], bytes_per_second)
}

/// Holds these links of the calling thread's namespace to a rate.
pub(crate) fn shape_links(links: &[&str], bytes_per_second: u64) -> Result<(), NetworkError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .during(|| "starting a runtime".into())?;
    runtime.block_on(async {
        let netlink = netlink()?;
        for link in links {
            shape(netlink.clone(), link, bytes_per_second).await?;
        }
        Ok(())
    })
}

async fn shape(mut netlink: Handle, link: &str, bytes_per_second: u64) -> Result<(), NetworkError> {
    let index = if_nametoindex(link).during(|| format!("looking up the interface {link}"))?;
    let what = || format!("limiting the rate of {link} (does the kernel have sch_tbf?)");
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message.attributes = vec![
        TcAttribute::Kind("tbf".into()),
        TcAttribute::Options(options(bytes_per_second)),
    ];
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let mut answers = netlink.request(request).during(what)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(error.to_io()).during(what);
        }
    }
    Ok(())
}

/// The whole rate and the burst stand in attributes of their own: the older fields hold 32 bits.
fn options(bytes_per_second: u64) -> Vec<TcOption> {
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let queue = (bytes_per_second / 10).clamp(*QUEUE_BYTES.start(), *QUEUE_BYTES.end());
    let rate = |rate: u32| {
        // `struct tc_ratespec`: only the link layer and the rate matter.
        let mut bytes = [0; 12];
        bytes[1] = ETHERNET;
        bytes[8..].copy_from_slice(&rate.to_ne_bytes());
        bytes
    };
    // `struct tc_tbf_qopt`: rate, peak rate, queue, bucket and largest packet in ticks (`BURST` counts).
    let parameters = [rate(small(bytes_per_second)), rate(0)]
        .concat()
        .into_iter()
        .chain(small(queue).to_ne_bytes())
        .chain([0; 8])
        .collect();
    [
        (PARAMETERS, parameters),
        (RATE, bytes_per_second.to_ne_bytes().to_vec()),
        (BURST, small(bytes_per_second).to_ne_bytes().to_vec()),
    ]
    .map(|(kind, value)| TcOption::Other(DefaultNla::new(kind, value)))
    .into()
}
