use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd},
};

use hearth_agent_protocol::{GATEWAY_ADDRESS, GATEWAY_MAC, GUEST_ADDRESS, GUEST_MAC, GUEST_PREFIX_LENGTH};
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::link::{InfoData, InfoVeth},
};
use tokio::runtime;

use crate::{
    Egress, NetworkConfig, NetworkError,
    error::While,
    namespace::Namespace,
    nft,
    resolver::Sockets,
    rules::{self, VETH},
    slot::{API_ADDRESS, METADATA_ADDRESS},
    sysctl,
    tap::{self, TAP},
};

/// A namespace ready for a MicroVM, and the resolver's sockets in it.
pub(crate) struct Built {
    pub(crate) namespace: Namespace,
    pub(crate) sockets: Sockets,
}

/// Makes the namespace of slot `index`. Leaves the calling thread anywhere: run it on a thread of its own.
pub(crate) fn make(
    config: &NetworkConfig,
    home: &Namespace,
    index: u16,
    mtu: u32,
) -> Result<Built, NetworkError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .during(|| "starting a runtime".into())?;
    let name = config.name(index);
    let (host_end, guest_end) = config.link(index);
    runtime.block_on(async {
        let host = netlink()?;
        let namespace =
            Namespace::unshare(&config.mount(&name)).during(|| format!("making the namespace {name}"))?;

        home.enter()
            .during(|| "returning to the host's namespace".into())?;
        let peer = LinkMessageBuilder::<LinkUnspec>::default()
            .name(VETH)
            .mtu(mtu)
            .setns_by_fd(namespace.as_fd().as_raw_fd())
            .build();
        let pair = LinkVeth::new(&name, VETH)
            .mtu(mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        host.link()
            .add(pair)
            .execute()
            .await
            .during(|| format!("making the link {name}"))?;
        sysctl::write_if_present(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
        sysctl::write(&format!("ipv4/conf/{name}/forwarding"), "1")?;
        sysctl::write(&format!("ipv4/conf/{name}/rp_filter"), "1")?;
        sysctl::write(&format!("ipv4/conf/{name}/send_redirects"), "0")?;
        let link = index_of(&name)?;
        address(&host, link, host_end, 31).await?;
        up(&host, LinkUnspec::new_with_index(link)).await?;

        namespace
            .enter()
            .during(|| format!("entering the namespace {name}"))?;
        furnish(config, host_end, guest_end, mtu).await?;
        Ok(Built {
            sockets: Sockets::bind()?,
            namespace,
        })
    })
}

/// Takes over a namespace whose VM outlived an earlier daemon. Run it on a thread of its own.
pub(crate) fn adopt(config: &NetworkConfig, name: &str, egress: &Egress) -> Result<Built, NetworkError> {
    let namespace = Namespace::mounted(&config.mount(name)).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => NetworkError::Unknown(name.into()),
        _ => NetworkError::Io {
            what: format!("opening the namespace {name}"),
            cause: error,
        },
    })?;
    namespace
        .enter()
        .during(|| format!("entering the namespace {name}"))?;
    // The rules of this daemon's version and configuration; connections stay, since conntrack is not touched. What is
    // the same already stays, too: with it the addresses of names that the guest knows.
    if !nft::has_chain("guest", &rules::namespace_mark(config, egress))? {
        nft::apply(&rules::namespace(config, egress))?;
    }
    Ok(Built {
        sockets: Sockets::bind()?,
        namespace,
    })
}

/// Everything inside the namespace, which the calling thread is in.
async fn furnish(
    config: &NetworkConfig,
    host_end: Ipv4Addr,
    own_end: Ipv4Addr,
    mtu: u32,
) -> Result<(), NetworkError> {
    for scope in ["all", "default"] {
        sysctl::write_if_present(&format!("ipv6/conf/{scope}/disable_ipv6"), "1")?;
    }
    // Rules before any link is up: no packet passes unfiltered, and conntrack's settings appear when its module is loaded.
    fence(config)?;
    sysctl::write("ipv4/ip_forward", "1")?;
    sysctl::write("ipv4/conf/all/rp_filter", "1")?;
    sysctl::write("ipv4/conf/all/send_redirects", "0")?;
    sysctl::write("ipv4/conf/all/accept_redirects", "0")?;
    // A guest does not choose its packets' way.
    sysctl::write("ipv4/conf/all/accept_source_route", "0")?;
    // Only a SYN opens a connection; what is out of its window is left to the peers instead of being reset.
    sysctl::write("netfilter/nf_conntrack_tcp_loose", "0")?;
    sysctl::write("netfilter/nf_conntrack_tcp_be_liberal", "1")?;

    let inside = netlink()?;
    let loopback = index_of("lo")?;
    up(&inside, LinkUnspec::new_with_index(loopback)).await?;
    for own in [METADATA_ADDRESS, API_ADDRESS] {
        address(&inside, loopback, own, 32).await?;
    }

    let uplink = index_of(VETH)?;
    address(&inside, uplink, own_end, 31).await?;
    up(&inside, LinkUnspec::new_with_index(uplink)).await?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(host_end)
        .output_interface(uplink)
        .build();
    inside
        .route()
        .add(default)
        .execute()
        .await
        .during(|| "adding the default route".into())?;

    let tap = index_of(TAP)?;
    up(
        &inside,
        LinkUnspec::new_with_index(tap)
            .mtu(mtu)
            .address(GATEWAY_MAC.to_vec()),
    )
    .await?;
    address(&inside, tap, GATEWAY_ADDRESS.into(), GUEST_PREFIX_LENGTH).await?;
    inside
        .neighbours()
        .add(tap, IpAddr::from(GUEST_ADDRESS))
        .link_layer_address(&GUEST_MAC)
        .execute()
        .await
        .during(|| "adding the guest as a neighbour".into())
}

/// The tap, which the rules name, and the rules.
pub(crate) fn fence(config: &NetworkConfig) -> Result<(), NetworkError> {
    tap::create(config.tap_group).during(|| "making the tap (is the kernel module tun there?)".into())?;
    nft::apply(&rules::namespace(config, &Egress::internet()))
}

/// Opens a netlink socket in the calling thread's namespace, where it stays.
pub(crate) fn netlink() -> Result<Handle, NetworkError> {
    let (connection, handle, _) = rtnetlink::new_connection().during(|| "opening a netlink socket".into())?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn address(netlink: &Handle, link: u32, address: Ipv4Addr, length: u8) -> Result<(), NetworkError> {
    let request = netlink.address().add(link, address.into(), length);
    request
        .execute()
        .await
        .during(|| format!("adding the address {address}/{length}"))
}

async fn up(netlink: &Handle, link: LinkMessageBuilder<LinkUnspec>) -> Result<(), NetworkError> {
    netlink
        .link()
        .set(link.up().build())
        .execute()
        .await
        .during(|| "bringing a link up".into())
}

fn index_of(name: &str) -> Result<u32, NetworkError> {
    if_nametoindex(name).during(|| format!("looking up the interface {name}"))
}
