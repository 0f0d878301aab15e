// SPDX-License-Identifier: GPL-2.0-only
/*
 * A provider for configfs-tsm that asks a secure processor in software: SIMULATED, NOT CONFIDENTIAL.
 *
 * Built into the kernel of the test image only. Each report is one exchange on a fresh stream to the host, port
 * 7004, in the form of the simulator's report port:
 *
 *   request   u8 version = 1 | report data (64)
 *   response  u8 version = 1 | be32 len | report | be32 len | certificate table
 *
 * The guest's program sees what it sees on real hardware, except for the provider's name, which says what this is.
 */
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/net.h>
#include <linux/slab.h>
#include <linux/tsm.h>
#include <linux/unaligned.h>
#include <linux/vm_sockets.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#define SIM_PORT 7004
#define SIM_VERSION 1
#define SIM_TIMEOUT (10 * HZ)
#define SIM_REPORT_LEN 1184
#define SIM_TABLE_MAX SZ_16K

static int sim_read(struct socket *sock, void *buffer, size_t len)
{
	u8 *at = buffer;

	while (len) {
		struct msghdr msg = {};
		struct kvec vec = { .iov_base = at, .iov_len = len };
		int got = kernel_recvmsg(sock, &msg, &vec, 1, len, 0);

		if (got <= 0)
			return got ? got : -ECONNRESET;
		at += got;
		len -= got;
	}
	return 0;
}

static int sim_read_blob(struct socket *sock, size_t max, u8 **blob, size_t *blob_len)
{
	__be32 head;
	size_t len;
	int ret = sim_read(sock, &head, sizeof(head));

	if (ret)
		return ret;
	len = be32_to_cpu(head);
	if (len > max)
		return -EMSGSIZE;
	*blob = kvzalloc(max(len, (size_t)1), GFP_KERNEL);
	if (!*blob)
		return -ENOMEM;
	*blob_len = len;
	return sim_read(sock, *blob, len);
}

static int sim_exchange(struct socket *sock, struct tsm_report *report)
{
	u8 request[1 + TSM_INBLOB_MAX] = { SIM_VERSION };
	struct sockaddr_vm host = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_HOST,
		.svm_port = SIM_PORT,
	};
	struct kvec vec = { .iov_base = request, .iov_len = sizeof(request) };
	struct msghdr msg = {};
	u8 version;
	int ret;

	memcpy(request + 1, report->desc.inblob, TSM_INBLOB_MAX);
	sock->sk->sk_rcvtimeo = SIM_TIMEOUT;
	sock->sk->sk_sndtimeo = SIM_TIMEOUT;
	ret = kernel_connect(sock, (struct sockaddr *)&host, sizeof(host), 0);
	if (ret)
		return ret;
	ret = kernel_sendmsg(sock, &msg, &vec, 1, sizeof(request));
	if (ret != sizeof(request))
		return ret < 0 ? ret : -EIO;
	ret = sim_read(sock, &version, 1);
	if (ret)
		return ret;
	if (version != SIM_VERSION)
		return -EPROTO;
	ret = sim_read_blob(sock, SIM_REPORT_LEN, &report->outblob, &report->outblob_len);
	if (ret)
		return ret;
	if (report->outblob_len != SIM_REPORT_LEN)
		return -EPROTO;
	return sim_read_blob(sock, SIM_TABLE_MAX, &report->auxblob, &report->auxblob_len);
}

static int sim_report_new(struct tsm_report *report, void *data)
{
	struct socket *sock;
	int ret;

	if (report->desc.inblob_len != TSM_INBLOB_MAX)
		return -EINVAL;
	ret = sock_create_kern(&init_net, AF_VSOCK, SOCK_STREAM, 0, &sock);
	if (ret)
		return ret;
	/* What was allocated belongs to the report, which the core frees, also after an error. */
	ret = sim_exchange(sock, report);
	sock_release(sock);
	return ret;
}

static bool sim_attr_visible(int n)
{
	return n == TSM_REPORT_GENERATION || n == TSM_REPORT_PROVIDER;
}

static bool sim_bin_attr_visible(int n)
{
	return n == TSM_REPORT_INBLOB || n == TSM_REPORT_OUTBLOB || n == TSM_REPORT_AUXBLOB;
}

static const struct tsm_ops sim_ops = {
	.name = "adyton_sim",
	.report_new = sim_report_new,
	.report_attr_visible = sim_attr_visible,
	.report_bin_attr_visible = sim_bin_attr_visible,
};

static int __init sim_init(void)
{
	pr_warn("tsm_sim: SIMULATED, NOT CONFIDENTIAL\n");
	return tsm_register(&sim_ops, NULL);
}
late_initcall(sim_init);
