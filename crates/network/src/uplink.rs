use std::{net::Ipv4Addr, pin::pin};

use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        link::{LinkAttribute, LinkMessage},
        route::{RouteAttribute, RouteHeader},
    },
};

use crate::{NetworkConfig, NetworkError, error::While};

/// What an interface without an MTU attribute, or a machine without an uplink, is taken to carry, in bytes.
const ETHERNET_MTU: u32 = 1500;

/// An interface of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Largest packet in bytes.
    pub(crate) mtu: u32,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            mtu: ETHERNET_MTU,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                _ => {}
            }
        }
        link
    }
}

/// Every interface of the namespace the handle was opened in. Nobody else may make a list with it meanwhile.
pub(crate) fn links(netlink: &Handle) -> BoxFuture<'_, Result<Vec<Link>, NetworkError>> {
    async move {
        let messages = netlink.link().get().execute().map_ok(Link::from);
        messages
            .try_collect()
            .await
            .during(|| "listing interfaces".into())
    }
    .boxed()
}

/// The interface of this name, if there is one. A netlink socket makes one list at a time (a second one meanwhile is `EBUSY`), so
/// this asks for no list.
pub(crate) fn link<'a>(
    netlink: &'a Handle,
    name: &'a str,
) -> BoxFuture<'a, Result<Option<Link>, NetworkError>> {
    async move {
        let mut answer = pin!(netlink.link().get().match_name(name).execute());
        match answer.try_next().await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(None),
            answer => Ok(answer
                .during(|| format!("looking for the link {name}"))?
                .map(Link::from)),
        }
    }
    .boxed()
}

/// Removes a link.
pub(crate) fn remove(netlink: &Handle, link: Link) -> BoxFuture<'_, Result<(), NetworkError>> {
    async move {
        let request = netlink.link().del(link.index);
        request
            .execute()
            .await
            .during(|| format!("removing the link {}", link.name))
    }
    .boxed()
}

/// The interfaces towards the Internet: the configured ones, or those of the default routes.
pub(crate) async fn find(netlink: &Handle, config: &NetworkConfig) -> Result<Vec<Link>, NetworkError> {
    let links = links(netlink).await?;
    if config.uplinks.is_empty() {
        let indices = default_routes(netlink).await?;
        return Ok(links
            .into_iter()
            .filter(|link| indices.contains(&link.index))
            .collect());
    }
    if let Some(missing) = config
        .uplinks
        .iter()
        .find(|name| !links.iter().any(|link| link.name == **name))
    {
        return Err(NetworkError::Config(format!(
            "there is no interface {missing}, which is named as an uplink"
        )));
    }
    Ok(links
        .into_iter()
        .filter(|link| config.uplinks.contains(&link.name))
        .collect())
}

/// The smallest MTU on the way out, in bytes.
pub(crate) fn mtu(uplinks: &[Link]) -> u32 {
    uplinks.iter().map(|link| link.mtu).min().unwrap_or(ETHERNET_MTU)
}

fn default_routes(netlink: &Handle) -> BoxFuture<'_, Result<Vec<u32>, NetworkError>> {
    list_default_routes(netlink).boxed()
}

async fn list_default_routes(netlink: &Handle) -> Result<Vec<u32>, NetworkError> {
    let wanted = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut routes = Box::pin(netlink.route().get(wanted).execute());
    let mut indices = Vec::new();
    while let Some(route) = routes.try_next().await.during(|| "listing routes".into())? {
        if route.header.destination_prefix_length != 0 || route.header.table != RouteHeader::RT_TABLE_MAIN {
            continue;
        }
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => indices.push(index),
                RouteAttribute::MultiPath(hops) => indices.extend(hops.iter().map(|hop| hop.interface_index)),
                _ => {}
            }
        }
    }
    Ok(indices)
}
