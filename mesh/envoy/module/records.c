/* Requests and responses, as the observer reads them: an access log inside Envoy.
 *
 * In:        what Envoy knows about a request when it is sent on, answered or refused.
 * Out:       a line for each in the ring of the worker that serves it; model/decode/lines.py says what is in it.
 * Elsewhere: ring.c keeps the lines until the agent takes them; mesh/envoy/records.py has Envoy load this.
 *
 * Each log is of a kind: `upstream` tells of tries at servers, `downstream` of what Envoy answered by itself, `exit` of
 * what policy refused when a backend was chosen, `connection` of connections without requests that policy refused. Nothing here waits, or takes memory, once a log is made.
 */
#include "envoy.h"
#include "ring.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SEPARATOR '\x1f'
#define LONGEST_URL 2048
#define LONGEST_HEADER 256
#define LONGEST_WORD 64
#define MOST_WORKERS 1024
/* Envoy takes 100 of a request, unless a CiliumEnvoyConfig says otherwise. */
#define MOST_HEADERS 128

/* Of a number of 64 bits. */
#define MOST_DIGITS 20
#define FIELDS 16
#define LONGEST_LINE 4096
_Static_assert(LONGEST_URL + 5 * LONGEST_HEADER + 8 * LONGEST_WORD + 5 * MOST_DIGITS + FIELDS <= LONGEST_LINE,
	       "a line has room for its fields, one byte behind each");

#define TEXT(literal) ((struct text){ literal, sizeof(literal) - 1 })

/* Envoy's response flags; the letters are those of its documentation. */
#define FLAG(number) (UINT64_C(1) << (number))
#define LH FLAG(0)    /* the server's health check failed */
#define UH FLAG(1)    /* no server there */
#define UT FLAG(2)    /* the server was too slow */
#define UR FLAG(4)    /* the server reset */
#define UF FLAG(5)    /* no connection */
#define UC FLAG(6)    /* the server broke off */
#define UO FLAG(7)    /* too many */
#define NR FLAG(8)    /* no route */
#define URX FLAG(15)  /* too many tries */
#define DPE FLAG(18)  /* what the client sent is no HTTP */
#define UMSDR FLAG(19) /* the stream was too long */
#define DT FLAG(22)   /* took too long */
#define UPE FLAG(23)  /* what the server sent is no HTTP */
#define NC FLAG(24)   /* no cluster */
#define OM FLAG(25)   /* no memory */

/* Why no server was asked. */
#define UNREACHED (UF | UH | UO | NR | NC)
/* Why Envoy answers by itself. */
#define FAILED (UNREACHED | UC | UR | UT | URX | LH | UMSDR | DPE | DT | OM)
/* A server's answer that begins well has been told, with the code that the server gave it. */
#define BAD_GATEWAY 502

enum kind { UPSTREAM, DOWNSTREAM, EXIT, CONNECTION };
enum about { REQUEST, RESPONSE, CONNECT };
enum server { CONNECTED, WANTED };

struct config {
	enum kind kind;
	size_t point_size;
	char point[LONGEST_WORD];
};

/* One log of one worker. */
struct logger {
	struct config config;
	struct ring *ring;
};

/* What a client has sent, and Envoy added. */
struct request {
	size_t count; /* 0: too many to have them here, or none */
	struct header headers[MOST_HEADERS];
};

struct line {
	char *at;
	char bytes[LONGEST_LINE];
};

/* The rings of this Envoy, by worker. Made once, on the main thread, before any worker has a log. */
static struct ring *rings;
static uint32_t workers;
static char rings_folder[PATH_MAX];

static void complain(const char *what, const char *folder, int error)
{
	char message[PATH_MAX + 256];
	int size = snprintf(message, sizeof(message), "records of requests: %s %s: %s", what, folder, strerror(error));

	if (size > 0)
		envoy_dynamic_module_callback_log(LOG_ERROR, (struct text){ message, strlen(message) });
}

static bool make_rings(const char *folder)
{
	if (rings && !strcmp(folder, rings_folder))
		return true;
	if (rings) {
		complain("they are in another folder than", folder, EINVAL);
		return false;
	}
	uint32_t count = envoy_dynamic_module_callback_get_concurrency();
	struct ring *made = count && count <= MOST_WORKERS ? calloc(count, sizeof(*made)) : NULL;
	if (!made) {
		complain("no memory for", folder, ENOMEM);
		return false;
	}
	for (uint32_t number = 0; number < count; number++) {
		int error = ring_make(&made[number], folder, number);
		if (error) {
			/* Those before it stay, empty: the reader removes them when this process ends. */
			complain("no room in", folder, error);
			free(made);
			return false;
		}
	}
	strcpy(rings_folder, folder);
	workers = count;
	rings = made;
	return true;
}

/* ---- lines ---- */

static void put(struct line *line, struct text text, size_t longest)
{
	size_t size = text.size < longest ? text.size : longest;

	for (size_t number = 0; number < size; number++) {
		char byte = text.at[number];
		/* Envoy takes no such bytes from anybody; if it did, they would not break a line. */
		line->at[number] = (unsigned char)byte < ' ' ? ' ' : byte;
	}
	line->at += size;
}

static void put_number(struct line *line, uint64_t number)
{
	char digits[MOST_DIGITS];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number);
	memcpy(line->at, digits + at, sizeof(digits) - at);
	line->at += sizeof(digits) - at;
}

static void next(struct line *line)
{
	*line->at++ = SEPARATOR;
}

static bool is(struct text text, struct text other)
{
	return text.size == other.size && !memcmp(text.at, other.at, other.size);
}

/* All at once: each question costs Envoy as much as all headers do. */
static void get_headers(struct request *request, envoy_logger logger)
{
	size_t count = envoy_dynamic_module_callback_access_logger_get_headers_size(logger, REQUEST_HEADERS);

	request->count = 0;
	if (count <= MOST_HEADERS &&
	    envoy_dynamic_module_callback_access_logger_get_headers(logger, REQUEST_HEADERS, request->headers))
		request->count = count;
}

static void put_header(struct line *line, const struct request *request, envoy_logger logger, struct text name,
		       size_t longest)
{
	struct text value;

	for (size_t number = 0; number < request->count; number++) {
		if (is(request->headers[number].name, name)) {
			put(line, request->headers[number].value, longest);
			return;
		}
	}
	if (!request->count && envoy_dynamic_module_callback_access_logger_get_header_value(logger, REQUEST_HEADERS, name,
											    &value, 0, NULL))
		put(line, value, longest);
}

static void put_url(struct line *line, const struct request *request, envoy_logger logger)
{
	const char *start = line->at;

	put_header(line, request, logger, TEXT(":scheme"), LONGEST_WORD);
	/* Envoy adds a scheme to whatever it understands; of the rest nothing is known. */
	if (line->at == start)
		return;
	put(line, TEXT("://"), LONGEST_WORD);
	put_header(line, request, logger, TEXT(":authority"), LONGEST_HEADER);
	put_header(line, request, logger, TEXT(":path"), LONGEST_URL);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool server_address(envoy_logger logger, enum server server, struct text *address, uint32_t *port)
{
	return server == CONNECTED
		       ? envoy_dynamic_module_callback_access_logger_get_upstream_remote_address(logger, address, port)
		       : envoy_dynamic_module_callback_access_logger_get_downstream_local_address(logger, address, port);
}

static void tell(const struct logger *own, envoy_logger logger, enum about about, struct text verdict, enum server server)
{
	struct text client = TEXT(""), target = TEXT(""), protocol = TEXT("");
	uint32_t client_port = 0, target_port = 0;
	struct request request;
	static const struct text words[] = {
		[REQUEST] = { "Request", 7 }, [RESPONSE] = { "Response", 8 }, [CONNECT] = { "Connection", 10 },
	};
	struct timing timing;
	struct line line;

	line.at = line.bytes;
	get_headers(&request, logger);
	envoy_dynamic_module_callback_access_logger_get_timing_info(logger, &timing);
	envoy_dynamic_module_callback_access_logger_get_downstream_remote_address(logger, &client, &client_port);
	uint64_t began = timing.start_ns > 0 ? (uint64_t)timing.start_ns : 0;

	put_number(&line, about == RESPONSE ? now_ns() : began);
	next(&line);
	put_number(&line, began);
	next(&line);
	put_number(&line, client_port);
	next(&line);
	put_header(&line, &request, logger, TEXT("x-request-id"), LONGEST_HEADER);
	next(&line);
	put_header(&line, &request, logger, TEXT("traceparent"), LONGEST_HEADER);
	next(&line);
	put_url(&line, &request, logger);
	next(&line);
	put(&line, words[about], LONGEST_WORD);
	next(&line);
	put(&line, verdict, LONGEST_WORD);
	next(&line);
	put(&line, (struct text){ own->config.point, own->config.point_size }, LONGEST_WORD);
	next(&line);
	if (envoy_dynamic_module_callback_access_logger_get_protocol(logger, &protocol))
		put(&line, protocol, LONGEST_WORD);
	next(&line);
	if (about == RESPONSE)
		put_number(&line, envoy_dynamic_module_callback_access_logger_get_response_code(logger));
	next(&line);
	put(&line, client, LONGEST_WORD);
	next(&line);
	if (server_address(logger, server, &target, &target_port)) {
		put(&line, target, LONGEST_WORD);
		next(&line);
		put_number(&line, target_port);
	} else {
		next(&line);
	}
	next(&line);
	put_header(&line, &request, logger, TEXT(":method"), LONGEST_HEADER);
	next(&line);
	if (about == REQUEST)
		put_header(&line, &request, logger, TEXT("user-agent"), LONGEST_HEADER);
	*line.at++ = '\n';
	ring_put(own->ring, line.bytes, (size_t)(line.at - line.bytes));
}

/* ---- what is told ---- */

static bool tells_of_refusal(struct text details)
{
	struct text refused = TEXT("rbac_access_denied");

	return details.size >= refused.size && !memcmp(details.at, refused.at, refused.size);
}

static bool is_refused(envoy_logger logger)
{
	struct text details;

	return envoy_dynamic_module_callback_access_logger_get_response_code_details(logger, &details) &&
	       tells_of_refusal(details);
}

/* What policy's filter for requests that come in has said; empty when it was not asked. */
static struct text judgement(envoy_logger logger)
{
	struct text found;

	if (envoy_dynamic_module_callback_access_logger_get_dynamic_metadata(
		    logger, TEXT("envoy.filters.http.rbac"), TEXT("enforced_engine_result"), &found))
		return found;
	return TEXT("");
}

static void tell_upstream(const struct logger *own, envoy_logger logger, enum log_type type)
{
	if (type == UPSTREAM_POOL_READY)
		tell(own, logger, REQUEST, TEXT("Forwarded"), CONNECTED);
	else if (type == UPSTREAM_END && envoy_dynamic_module_callback_access_logger_get_response_code(logger) >= 100)
		tell(own, logger, RESPONSE, TEXT("Forwarded"), CONNECTED);
}

static void tell_downstream(const struct logger *own, envoy_logger logger, enum log_type type)
{
	if (type != DOWNSTREAM_END)
		return;
	uint64_t flags = envoy_dynamic_module_callback_access_logger_get_response_flags(logger);

	if (is_refused(logger) && is(judgement(logger), TEXT("denied")))
		tell(own, logger, REQUEST, TEXT("Denied"), WANTED);
	if (flags & UNREACHED)
		tell(own, logger, REQUEST, TEXT("Forwarded"), WANTED);
	if (flags & FAILED ||
	    (flags & UPE && envoy_dynamic_module_callback_access_logger_get_response_code(logger) == BAD_GATEWAY))
		tell(own, logger, RESPONSE, TEXT("Forwarded"), WANTED);
}

static void tell_exit(const struct logger *own, envoy_logger logger, enum log_type type)
{
	if (type != DOWNSTREAM_END || !is_refused(logger))
		return;
	struct text before = judgement(logger);

	/* What was refused before a backend was chosen is told by the other log. */
	if (!before.size || is(before, TEXT("allowed")))
		tell(own, logger, REQUEST, TEXT("Denied"), CONNECTED);
}

static void tell_connection(const struct logger *own, envoy_logger logger, enum log_type type)
{
	struct text details;

	(void)type;
	if (envoy_dynamic_module_callback_access_logger_get_connection_termination_details(logger, &details) &&
	    tells_of_refusal(details))
		tell(own, logger, CONNECT, TEXT("Denied"), WANTED);
}

/* ---- asked by Envoy ---- */

const char *envoy_dynamic_module_on_program_init(void)
{
	return ENVOY_ABI;
}

const void *envoy_dynamic_module_on_access_logger_config_new(void *envoy_config, struct text name, struct text config)
{
	char folder[PATH_MAX];
	struct config made = { 0 };
	/* The point of observation, a colon, and the folder of the rings. */
	const char *colon = config.size ? memchr(config.at, ':', config.size) : NULL;

	(void)envoy_config;
	if (!colon)
		return NULL;
	made.point_size = (size_t)(colon - config.at);
	size_t rest = config.size - made.point_size - 1;
	if (made.point_size > sizeof(made.point) || !rest || rest >= sizeof(folder))
		return NULL;
	memcpy(made.point, config.at, made.point_size);
	memcpy(folder, colon + 1, rest);
	folder[rest] = '\0';

	if (is(name, TEXT("upstream")))
		made.kind = UPSTREAM;
	else if (is(name, TEXT("downstream")))
		made.kind = DOWNSTREAM;
	else if (is(name, TEXT("exit")))
		made.kind = EXIT;
	else if (is(name, TEXT("connection")))
		made.kind = CONNECTION;
	else
		return NULL;
	if (!make_rings(folder))
		return NULL;
	struct config *kept = malloc(sizeof(*kept));
	if (kept)
		*kept = made;
	return kept;
}

void envoy_dynamic_module_on_access_logger_config_destroy(const void *config)
{
	free((void *)config);
}

const void *envoy_dynamic_module_on_access_logger_new(const void *config, envoy_logger logger)
{
	uint32_t worker = envoy_dynamic_module_callback_access_logger_get_worker_index(logger);
	/* The main thread has the number after the last worker's, and serves no requests. */
	struct logger *made = worker < workers ? malloc(sizeof(*made)) : NULL;

	if (made)
		*made = (struct logger){ .config = *(const struct config *)config, .ring = &rings[worker] };
	return made;
}

void envoy_dynamic_module_on_access_logger_destroy(const void *own)
{
	free((void *)own);
}

void envoy_dynamic_module_on_access_logger_log(envoy_logger logger, void *own, enum log_type type)
{
	static void (*const tells[])(const struct logger *, envoy_logger, enum log_type) = {
		[UPSTREAM] = tell_upstream,
		[DOWNSTREAM] = tell_downstream,
		[EXIT] = tell_exit,
		[CONNECTION] = tell_connection,
	};
	const struct logger *mine = own;

	tells[mine->config.kind](mine, logger, type);
}
