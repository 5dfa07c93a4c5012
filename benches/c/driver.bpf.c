/* Puts a flow's 5-tuple into the frame and hands it to the program under test, which is thus run on flows in random order, or
 * on one new flow after the other, without leaving the kernel. What this costs is measured with a subject that does nothing. */
#include "packet.h"

enum { ESTABLISHED = 0, REPLY = 1, OPEN = 2, SYNACK = 3, FOREIGN_PACKET = 4, FOREIGN_OUT = 5 };

struct plan {
	__u32 kind;
	__u32 flows;  /* how many there are to choose from */
	__u32 random; /* any order; otherwise one after the other */
	__u32 next;   /* the one that comes first, then the last that came */
	__u32 chance; /* state of the random numbers, not 0 */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct plan);
} PLAN SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} XDP_SUBJECT SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} TC_SUBJECT SEC(".maps");

static __always_inline int prepare(void *data, void *end)
{
	struct frame *f = data;
	__u32 zero = 0;
	struct plan *plan = bpf_map_lookup_elem(&PLAN, &zero);
	__u32 flow, kind;
	__be32 client;
	__be16 port;

	if (!plan || (void *)(f + 1) > end)
		return -1;
	kind = plan->kind;
	if (plan->random) {
		__u32 x = plan->chance;

		/* Marsaglia, "Xorshift RNGs", 2003. */
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		plan->chance = x;
		flow = ((__u64)x * plan->flows) >> 32;
	} else {
		flow = plan->next++;
	}
	/* As many addresses as ports, so that neither alone tells flows apart. */
	client = bpf_htonl(0x0b000000 + (flow >> 10));
	port = bpf_htons(1024 + (flow & 1023) * 61);
	f->tcp.seq = 0;
	f->tcp.ack_seq = 0;
	((__u8 *)&f->tcp)[13] = kind == OPEN ? 0x02 : kind == SYNACK ? 0x12 : 0x10;
	if (kind == REPLY || kind == SYNACK) {
		f->ip.saddr = BACKEND;
		f->tcp.source = BACKEND_PORT;
		f->ip.daddr = client;
		f->tcp.dest = port;
	} else {
		f->ip.saddr = client;
		f->tcp.source = port;
		f->ip.daddr = kind == FOREIGN_PACKET || kind == FOREIGN_OUT ? FOREIGN : VIP;
		f->tcp.dest = VIP_PORT;
	}
	return 0;
}

SEC("xdp.frags")
int drive_xdp(struct xdp_md *ctx)
{
	if (prepare((void *)(long)ctx->data, (void *)(long)ctx->data_end) == 0)
		bpf_tail_call(ctx, &XDP_SUBJECT, 0);
	return XDP_ABORTED;
}

SEC("classifier")
int drive_tc(struct __sk_buff *ctx)
{
	if (prepare((void *)(long)ctx->data, (void *)(long)ctx->data_end) == 0)
		bpf_tail_call(ctx, &TC_SUBJECT, 0);
	return TC_ACT_SHOT;
}

/* The subjects that do nothing. Their return values tell that they were reached. */
SEC("xdp.frags")
int nothing_xdp(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("classifier")
int nothing_tc(struct __sk_buff *ctx)
{
	return TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "GPL";
