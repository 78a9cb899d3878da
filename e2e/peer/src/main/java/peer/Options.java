package peer;

import java.util.HashMap;
import java.util.Map;
import java.util.Set;

/** Command line options of the form {@code --name value}; an unknown name is an error. */
record Options(Map<String, String> values) {
    private static final Map<String, String> DEFAULTS = Map.ofEntries(
            Map.entry("topology", "orders-risk"),
            Map.entry("bootstrap", "127.0.0.1:19092"),
            Map.entry("application-id", "orders-risk-peer"),
            Map.entry("input", "orders.submitted.v1"),
            Map.entry("output", "risk.decisions.v1"),
            Map.entry("threads", "2"),
            Map.entry("commit-interval-ms", "100"),
            Map.entry("guarantee", "exactly_once_v2"),
            Map.entry("cache-bytes", "10485760"),
            Map.entry("transactional-stores", "false"),
            Map.entry("keep-repartition-records", "false"),
            Map.entry("state-dir", ""));

    static final String USAGE = """
            usage: peer [--topology orders-risk|keyed-aggregate|stateless] [--bootstrap HOST:PORT]
                        [--application-id ID] [--input TOPIC] [--output TOPIC] [--threads N] [--commit-interval-ms MS]
                        [--guarantee exactly_once_v2|at_least_once] [--cache-bytes N]
                        [--transactional-stores true|false] [--keep-repartition-records true|false]
                        --state-dir DIR""";

    static Options parse(String[] arguments) {
        Map<String, String> values = new HashMap<>(DEFAULTS);
        Set<String> known = DEFAULTS.keySet();
        for (int i = 0; i < arguments.length; i += 2) {
            String name = arguments[i].startsWith("--") ? arguments[i].substring(2) : "";
            if (!known.contains(name) || i + 1 == arguments.length) {
                throw new IllegalArgumentException("unknown or incomplete option " + arguments[i] + "\n" + USAGE);
            }
            values.put(name, arguments[i + 1]);
        }
        if (values.get("state-dir").isEmpty()) {
            throw new IllegalArgumentException("--state-dir is needed\n" + USAGE);
        }
        return new Options(values);
    }

    String get(String name) {
        return values.get(name);
    }
}
