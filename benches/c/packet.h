/* What the drivers and the yardstick share: the frame, its layout, its keys. */
#ifndef PACKET_H
#define PACKET_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define VIP bpf_htonl(0x0a600001)     /* 10.96.0.1 */
#define BACKEND bpf_htonl(0x0a020001) /* 10.2.0.1, the first of them */
#define FOREIGN bpf_htonl(0x0a630001) /* 10.99.0.1, of no service */
#define VIP_PORT bpf_htons(80)
#define BACKEND_PORT bpf_htons(8080)

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct tcphdr tcp;
} __attribute__((packed));

struct key {
	__be32 src, dst;
	__be16 sport, dport;
	__u8 proto, pad[3];
};

/* One direction of a flow, as long as the one it is compared with. */
struct flow {
	__u64 state, packets, bytes, created;
	__u32 last_seen, backend;
	__be32 nat_addr;
	__be16 nat_port;
	__u8 reply, pad;
	__u32 fin[2];
	__u32 addr_delta, port_delta;
};

#endif
