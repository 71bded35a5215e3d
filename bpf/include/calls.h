/* Programs that others continue in: the array cilium_calls, and what travels in skb->cb[] with each jump. */
#ifndef FLOWSCOPE_CALLS_H
#define FLOWSCOPE_CALLS_H

#include "maps.h"

/* The jump to the service program, and back. */
enum service_scratch {
	SERVICE_CALLER,		/* there: enum caller */
	SERVICE_SRC_IDENTITY,	/* there and back: who sends, where the caller knows it from elsewhere */
	SERVICE_REASON,		/* back, of a client that is no endpoint: enum ct_status */
	SERVICE_MONITOR,	/* and whether it is to be told */
	SERVICE_HANDLING,	/* back: how the connection is handled, as ct_create() takes it */
};

enum caller {			/* whose second half goes on with the translated packet */
	CALLER_NONE = 0,	/* no service is asked for */
	CALLER_CONTAINER = CALL_CONTAINER_TRANSLATED,
	CALLER_HOST = CALL_HOST_TRANSLATED,
	CALLER_NETDEV = CALL_NETDEV_TRANSLATED,
};

/* The jumps to the programs of ICMP errors (flowscope_errors). */
enum error_scratch {
	ERROR_SRC_IDENTITY,
	ERROR_DST_IDENTITY,
	ERROR_SOURCE,		/* endpoint that tells; 0: the node */
	ERROR_SERVICE,		/* index of the service that was asked for; 0: none */
};

/* The jump to the program that translates answers for clients that are no endpoints here. */
enum reverse_scratch {
	REVERSE_SRC_IDENTITY,
	REVERSE_SOURCE,		/* endpoint that tells; 0: the node */
	REVERSE_REASON,		/* enum ct_status */
	REVERSE_MONITOR,
};

/* The jump to the node's own policy, for what has arrived. */
enum host_scratch {
	HOST_SRC_IDENTITY,	/* who sends; 0: whoever has the address */
};

#endif
