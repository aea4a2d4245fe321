from django.urls import path

from django_site import views

urlpatterns = [
    path("orders", views.orders),
    path("orders/<uuid:order_id>/pay", views.pay),
    path("health", views.health),
]
