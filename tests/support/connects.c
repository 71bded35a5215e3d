/* Short TCP connections, as many as the network carries: little is done here, so that what is measured is the way.
 *
 * connects serve PORT                    one byte in, one byte out, closed; until killed
 * connects ask ADDRESS PORT CONNECTIONS  ADDRESS is IPv4; prints nanoseconds on the clock and on the CPU
 */
#include <arpa/inet.h>
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define AT_ONCE		16		/* connections open at a time: more than one, so that neither side waits for the other */
#define BACKLOG		4096
#define PATIENCE_S	20

static long long now(clockid_t clock)
{
	struct timespec at;

	clock_gettime(clock, &at);
	return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static struct sockaddr_in address_of(const char *address, const char *port)
{
	struct sockaddr_in found = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };

	if (inet_pton(AF_INET, address, &found.sin_addr) != 1)
		errx(2, "%s is no IPv4 address", address);
	return found;
}

static int serve(const char *port)
{
	struct sockaddr_in here = address_of("0.0.0.0", port);
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, client;
	char byte;

	if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(listener, (struct sockaddr *)&here, sizeof(here)) || listen(listener, BACKLOG))
		err(1, "port %s", port);
	signal(SIGPIPE, SIG_IGN);
	for (;;) {
		client = accept(listener, NULL, NULL);
		if (client < 0)
			continue;
		if (read(client, &byte, 1) == 1 && write(client, &byte, 1) < 0)
			warn("answer");
		close(client);
	}
}

static int open_one(const struct sockaddr_in *server)
{
	struct timeval patience = { .tv_sec = PATIENCE_S };
	int client = socket(AF_INET, SOCK_STREAM, 0);

	if (client < 0 || setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
	    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) ||
	    connect(client, (const struct sockaddr *)server, sizeof(*server)) || write(client, "?", 1) != 1)
		err(1, "connect");
	return client;
}

/* The server closes first, so the client's ports are free again at once. */
static void finish(int client)
{
	char byte;

	if (read(client, &byte, 1) != 1 || read(client, &byte, 1) != 0)
		err(1, "answer");
	close(client);
}

static int ask(const struct sockaddr_in *server, int connections)
{
	long long began = now(CLOCK_MONOTONIC);
	int open[AT_ONCE], done, batch, i;

	for (done = 0; done < connections; done += batch) {
		batch = connections - done < AT_ONCE ? connections - done : AT_ONCE;
		for (i = 0; i < batch; i++)
			open[i] = open_one(server);
		for (i = 0; i < batch; i++)
			finish(open[i]);
	}
	printf("%lld %lld\n", now(CLOCK_MONOTONIC) - began, now(CLOCK_PROCESS_CPUTIME_ID));
	return 0;
}

int main(int count, char **words)
{
	if (count == 3 && !strcmp(words[1], "serve"))
		return serve(words[2]);
	if (count == 5 && !strcmp(words[1], "ask")) {
		struct sockaddr_in server = address_of(words[2], words[3]);

		return ask(&server, atoi(words[4]));
	}
	errx(2, "connects serve PORT | connects ask ADDRESS PORT CONNECTIONS");
}
