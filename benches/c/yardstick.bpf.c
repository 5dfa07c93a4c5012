/* The least that each step takes, by hand in C: what the programs under test are compared with. No counters, no states, no odd
 * packets, IPv4 and TCP only. */
#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct key);
	__type(value, struct flow);
} FLOWS SEC(".maps");

struct service_key {
	__be32 vip;
	__be16 port;
	__u8 proto, pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct service_key);
	__type(value, __u64);
} SERVICES SEC(".maps");

struct counts {
	__u32 count[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} ACTIVE SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow);
} SCRATCH SEC(".maps");

static __always_inline struct frame *parse(void *data, void *end, struct key *key)
{
	struct frame *f = data;

	if ((void *)(f + 1) > end || f->eth.h_proto != bpf_htons(ETH_P_IP) || f->ip.ihl != 5 ||
	    f->ip.protocol != IPPROTO_TCP || f->ip.frag_off & bpf_htons(0x3fff))
		return 0;
	key->src = f->ip.saddr;
	key->dst = f->ip.daddr;
	key->sport = f->tcp.source;
	key->dport = f->tcp.dest;
	key->proto = IPPROTO_TCP;
	key->pad[0] = key->pad[1] = key->pad[2] = 0;
	return f;
}

static __always_inline __u16 update(__u16 check, __u32 delta)
{
	__u64 sum = (__u64)(__u16)~check + delta;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The address, the port and the IP checksum. */
static __always_inline void put(struct frame *f, const struct flow *flow)
{
	if (flow->reply) {
		f->ip.saddr = flow->nat_addr;
		f->tcp.source = flow->nat_port;
	} else {
		f->ip.daddr = flow->nat_addr;
		f->tcp.dest = flow->nat_port;
	}
	f->ip.check = update(f->ip.check, flow->addr_delta);
}

/* The TCP checksum: by hand in XDP; in TC by the helper that knows what the kernel has still to add to it. */
static __always_inline void fix(void *ctx, int tc, struct frame *f, const struct flow *flow)
{
	const __u32 at = __builtin_offsetof(struct frame, tcp) + 16;

	if (tc) {
		bpf_l4_csum_replace(ctx, at, 0, flow->addr_delta, BPF_F_PSEUDO_HDR);
		bpf_l4_csum_replace(ctx, at, 0, flow->port_delta, 0);
	} else {
		f->tcp.check = update(update(f->tcp.check, flow->addr_delta), flow->port_delta);
	}
}

static __always_inline void translate(void *ctx, int tc, struct frame *f, const struct flow *flow)
{
	put(f, flow);
	fix(ctx, tc, f, flow);
}

/* 1: translated. 0: not ours. */
static __always_inline int established(void *ctx, int tc, void *data, void *end)
{
	struct key key;
	struct frame *f = parse(data, end, &key);
	struct flow *flow;

	if (!f)
		return 0;
	flow = bpf_map_lookup_elem(&FLOWS, &key);
	if (!flow)
		return 0;
	translate(ctx, tc, f, flow);
	return 1;
}

static __always_inline int miss(void *ctx, int tc, void *data, void *end)
{
	struct key key;
	struct frame *f = parse(data, end, &key);
	struct service_key service;

	if (!f)
		return 0;
	service.vip = key.dst;
	service.port = key.dport;
	service.proto = key.proto;
	service.pad = 0;
	return bpf_map_lookup_elem(&SERVICES, &service) != 0;
}

static __always_inline int anew(void *ctx, int tc, void *data, void *end)
{
	struct key key, twin;
	struct frame *f = parse(data, end, &key);
	struct flow *flow;
	struct counts *active;
	__u32 zero = 0, best = ~0U, which = 0;

	if (!f)
		return 0;
	active = bpf_map_lookup_elem(&ACTIVE, &zero);
	flow = bpf_map_lookup_elem(&SCRATCH, &zero);
	if (!active || !flow)
		return 0;
#pragma unroll
	for (int i = 0; i < 16; i++) {
		__u32 count = *(volatile __u32 *)&active->count[i];

		if (count < best) {
			best = count;
			which = i;
		}
	}
	__sync_fetch_and_add(&active->count[which & 15], 1);
	flow->backend = which;
	flow->nat_addr = BACKEND + (which << 24);
	flow->nat_port = BACKEND_PORT;
	flow->reply = 0;
	flow->addr_delta = ~key.dst + flow->nat_addr;
	flow->port_delta = (__u16)~key.dport + flow->nat_port;
	flow->created = flow->last_seen = bpf_jiffies64();
	if (bpf_map_update_elem(&FLOWS, &key, flow, BPF_NOEXIST))
		return 0;
	twin.src = flow->nat_addr;
	twin.dst = key.src;
	twin.sport = flow->nat_port;
	twin.dport = key.sport;
	twin.proto = key.proto;
	twin.pad[0] = twin.pad[1] = twin.pad[2] = 0;
	flow->reply = 1;
	flow->nat_addr = key.dst;
	flow->nat_port = key.dport;
	if (bpf_map_update_elem(&FLOWS, &twin, flow, BPF_NOEXIST))
		return 0;
	flow->reply = 0;
	flow->nat_addr = twin.src;
	flow->nat_port = twin.sport;
	translate(ctx, tc, f, flow);
	return 1;
}

#define DATA ((void *)(long)ctx->data)
#define END ((void *)(long)ctx->data_end)
#define BOTH(name)                                                                                                     \
	SEC("xdp.frags") int name##_xdp(struct xdp_md *ctx) { return name(ctx, 0, DATA, END) ? XDP_PASS : XDP_DROP; }          \
	SEC("classifier") int name##_tc(struct __sk_buff *ctx) { return name(ctx, 1, DATA, END) ? TC_ACT_UNSPEC : TC_ACT_SHOT; }

BOTH(established)
BOTH(miss)
BOTH(anew)

char LICENSE[] SEC("license") = "GPL";
