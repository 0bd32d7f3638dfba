"""Which subscription a message belongs to."""

from alerts.models import Action, Delivery, MailTopic


def topic_of(delivery: Delivery) -> MailTopic:
    """What a recipient unsubscribes from to get no more messages like this one."""
    return MailTopic.SUMMARIES if delivery.action == Action.REPORT else MailTopic.ALERTS
