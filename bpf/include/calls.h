/* Programs that others continue in: the array cilium_calls, and what travels in skb->cb[] with each jump. */
#ifndef FLOWSCOPE_CALLS_H
#define FLOWSCOPE_CALLS_H

#include "maps.h"

/* The jump to the service program, and back. */
enum service_scratch {
	SERVICE_CALLER,		/* there: enum caller */
	SERVICE_HANDLING,	/* back: how the connection is handled, as ct_create() takes it */
};

enum caller {			/* whose second half goes on with the translated packet */
	CALLER_CONTAINER = CALL_CONTAINER_TRANSLATED,
};

#endif
